"""Refuse the few system calls that reach past every namespace.

Sockets to the hypervisor (AF_VSOCK) know no network namespace, keyrings survive their user's
processes, and io_uring opens sockets without the call. This is no allow-list: what else the
kernel offers an unprivileged process stays open.
"""

from __future__ import annotations

import errno
import platform
import socket
import struct
from dataclasses import dataclass

from ctpo.sandbox import kernel

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
# Offsets in struct seccomp_data; the first argument's low half on a little-endian machine.
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
_IO_URING_SETUP = 425
_X32 = 0x40000000


@dataclass(frozen=True)
class _Machine:
    audit: int
    socket: int
    keys: tuple[int, int, int]  # add_key, request_key, keyctl


_MACHINES = {
    "x86_64": _Machine(audit=0xC000003E, socket=41, keys=(248, 249, 250)),
    "aarch64": _Machine(audit=0xC00000B7, socket=198, keys=(217, 218, 219)),
}


def refuse() -> None:
    """Refuse these calls to this process and all its descendants, for good.

    Raises:
        OSError: The kernel has no filters, or the machine's numbers are not known.
    """
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        raise OSError(errno.ENOSYS, f"no filter written for {platform.machine()}")
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.install_filter(_program(machine))


def _program(machine: _Machine) -> bytes:
    def refusal(number: int) -> bytes:
        return _instruction(_RETURN, _ERRNO | number)

    allow = _instruction(_RETURN, _ALLOW)
    steps = [
        # Another architecture's numbers would mean other calls.
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_EQUAL, machine.audit, on_true=1),
        refusal(errno.ENOSYS),
        _instruction(_LOAD, _NUMBER),
        _instruction(_AT_LEAST, _X32, on_false=1),
        refusal(errno.ENOSYS),
    ]
    for number in (*machine.keys, _IO_URING_SETUP):
        steps += [_instruction(_EQUAL, number, on_false=1), refusal(errno.EPERM)]
    steps += [_instruction(_EQUAL, machine.socket, on_true=1), allow]
    steps += [_instruction(_LOAD, _FIRST_ARGUMENT)]
    for family in _FAMILIES:
        steps += [_instruction(_EQUAL, family, on_false=1), allow]
    return b"".join([*steps, refusal(errno.EAFNOSUPPORT)])


def _instruction(code: int, value: int, *, on_true: int = 0, on_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, on_true, on_false, value)
