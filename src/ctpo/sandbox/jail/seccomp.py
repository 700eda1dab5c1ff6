"""The seccomp filter: an allow-list of system calls as a binary tree of classic BPF.

Built here, from `syscalls`, rather than with libseccomp: that is a system library which many
machines lack, takes 0.7 ms to load a filter, and everything needed of it is a search tree.

It has two parts, of which the kernel takes the stricter answer. The list is long, the same for
all, and costs a program nothing: its worker takes it once and forks with it. What a program may do
and its worker may not yet give up is short and taken by each program: no fork, and its own pid is
part of it, for it may signal itself and nobody else.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
from collections.abc import Sequence

from ctpo.sandbox.jail import kernel
from ctpo.sandbox.jail.syscalls import MACHINES, Machine

Code = list[bytes]

_LOAD, _EQUAL, _AT_LEAST, _AND, _JUMP, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x05, 0x06
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
# Offsets in struct seccomp_data. Both machines are little-endian: the low half comes first.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_X32 = 0x40000000

_CLONE_THREAD, _CLONE_PARENT = 0x10000, 0x8000
# Every CLONE_NEW* flag, CLONE_PTRACE, CLONE_PARENT and CLONE_PIDFD.
_CLONE_REFUSED = 0x7E020000 | 0x2000 | 0x8000 | 0x1000

# Name and dumpability and no_new_privs read, name set; PR_SET_VMA, with which libc names memory.
_PRCTL = (3, 15, 16, 39, 0x53564D41)
_WORKERS_PRCTL = (kernel.PR_SET_PDEATHSIG, kernel.PR_SET_SECCOMP)
# TCGETS (is it a terminal), TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX.
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# Duplication and flags; not F_SETOWN, F_SETSIG, F_NOTIFY, leases, setting pipe sizes or seals.
_FCNTL = (0, 1, 2, 3, 4, 1030, 1032)
# F_SETLK, F_SETLKW, F_OFD_SETLK, F_OFD_SETLKW. Locks reach outside, where somebody may wait for a
# file of the interpreter's, and each takes memory of the kernel's that no limit counts. A program
# is alone with its own files: it is told that it has the lock.
_LOCKS = (6, 7, 37, 38)
_O_TMPFILE = 0x400000
# Where programs have no file tree of their own, landlock does not cover these.
_METADATA = ("chmod", "fchmod", "fchmodat", "utime", "utimes", "utimensat", "futimesat")


class Filter:
    """Both parts, the second with a place for the pid of the process that takes it.

    Args:
        metadata: Whether modes and times of files may be changed.

    Raises:
        OSError: The numbers of this machine's system calls are not known.
    """

    def __init__(self, *, metadata: bool) -> None:
        machine = MACHINES.get(os.uname().machine)
        if machine is None:
            raise OSError(errno.ENOSYS, f"no filter written for {os.uname().machine}")
        self._list = kernel.FilterCode(build(machine, metadata=metadata))
        program = build_own(machine, _MARK)
        mark = struct.pack("=I", _MARK)
        # The value of an instruction is its last four bytes.
        self._places = [i for i in range(4, len(program), 8) if program[i : i + 4] == mark]
        self._own = kernel.FilterCode(program)

    def install(self) -> None:
        """Take the list, for good; forking a sibling is still allowed."""
        self._list.install()

    def install_own(self, pid: int) -> None:
        """Take the second part, for good.

        Args:
            pid: The caller's, as it knows itself.
        """
        for place in self._places:
            struct.pack_into("=I", self._own.code, place, pid)
        self._own.install()


_MARK = 0x7ABCDEF1  # no pid: those end at 2**22


def build_own(machine: Machine, pid: int) -> bytes:
    """The part that every program takes, which the list must precede.

    Args:
        machine: Whose calls.
        pid: Whom the process may signal.
    """
    checks: dict[str, Code] = {
        "clone": _clone([_CLONE_THREAD]),
        "prctl": [_argument(0), *_one_of(_PRCTL)],
        "kill": _signal_to_itself(pid, 1),
        "tgkill": _signal_to_itself(pid, 2),
        "prlimit64": [_argument(0), *_one_of([0, pid])],
    }
    code = [_instruction(_LOAD, _NUMBER)]
    for name, check in checks.items():
        code += [_instruction(_EQUAL, machine.calls[name], on_false=len(check)), *check]
    return b"".join([*code, _instruction(_RETURN, _ALLOW)])


def build(machine: Machine, *, metadata: bool) -> bytes:
    """The list.

    Args:
        machine: Whose calls.
        metadata: Whether modes and times of files may be changed.
    """
    checks: dict[str, Code] = {
        "clone": _clone([_CLONE_THREAD, _CLONE_PARENT]),
        # Files without a name leave no trace in the directory that shows whether it was used.
        "open": _without_flag(1, _O_TMPFILE),
        "openat": _without_flag(2, _O_TMPFILE),
        "prctl": [_argument(0), *_one_of((*_PRCTL, *_WORKERS_PRCTL))],
        "ioctl": [_argument(1), *_one_of(_IOCTL)],
        "fcntl": [_argument(1), *_idle_for(_LOCKS), *_one_of(_FCNTL)],
        # Of a datagram pair each end could be sent to any address.
        "socketpair": [
            _argument(0),
            _instruction(_EQUAL, socket.AF_UNIX, on_true=1),
            _refusal(errno.EPERM),
            _argument(1),
            _instruction(_AND, 0xF),
            *_one_of([socket.SOCK_STREAM]),
        ],
    }
    by_number: dict[int, Code] = {
        number: checks.get(name, [_instruction(_RETURN, _ALLOW)])
        for name, number in machine.calls.items()
        if metadata or name not in _METADATA
    }
    by_number |= {number: [_refusal(errno.ENOSYS)] for number in machine.absent}
    by_number |= {number: [_refusal(0)] for number in machine.idle}
    by_number |= {number: [_refusal(errno.EOPNOTSUPP)] for number in machine.unsupported}
    return b"".join(
        [
            # Another architecture's numbers would mean other calls.
            _instruction(_LOAD, _ARCHITECTURE),
            _instruction(_EQUAL, machine.audit, on_true=1),
            _instruction(_RETURN, _KILL_PROCESS),
            _instruction(_LOAD, _NUMBER),
            _instruction(_AT_LEAST, _X32, on_false=1),
            _instruction(_RETURN, _KILL_PROCESS),
            *_tree(_segments(by_number)),
        ]
    )


def _segments(by_number: dict[int, Code]) -> list[tuple[int, Code]]:
    """The line of numbers cut where the answer changes: first number and answer of each piece."""
    refused = [_refusal(errno.EPERM)]
    segments: list[tuple[int, Code]] = []
    for number in range(max(by_number) + 2):
        code = by_number.get(number, refused)
        if not segments or segments[-1][1] != code:
            segments.append((number, code))
    return segments


def _tree(segments: list[tuple[int, Code]]) -> Code:
    if len(segments) == 1:
        return segments[0][1]
    middle = len(segments) // 2
    low, high = _tree(segments[:middle]), _tree(segments[middle:])
    # The conditional jump reaches 255 instructions only, the other one any.
    return [
        _instruction(_AT_LEAST, segments[middle][0], on_false=1),
        _instruction(_JUMP, len(low)),
        *low,
        *high,
    ]


def _clone(kinds: Sequence[int]) -> Code:
    flags = _instruction(_AND, _CLONE_THREAD | _CLONE_REFUSED)
    return [_argument(0), flags, *_one_of(kinds)]


def _one_of(values: Sequence[int]) -> Code:
    """Allow when what was loaded is among the values."""
    code = []
    for i, value in enumerate(values):
        code.append(_instruction(_EQUAL, value, on_true=len(values) - i))
    return [*code, _refusal(errno.EPERM), _instruction(_RETURN, _ALLOW)]


def _without_flag(argument: int, flag: int) -> Code:
    """Allow unless a flag is among those of an argument; libraries then do without it."""
    refused = _refusal(errno.EOPNOTSUPP)
    allowed = _instruction(_RETURN, _ALLOW)
    test = [_instruction(_AND, flag), _instruction(_EQUAL, 0, on_false=1)]
    return [_argument(argument), *test, allowed, refused]


def _idle_for(values: Sequence[int]) -> Code:
    """Do nothing and succeed when what was loaded is among the values, else go on."""
    code = [_instruction(_EQUAL, v, on_true=len(values) - i) for i, v in enumerate(values)]
    return [*code, _instruction(_JUMP, 1), _refusal(0)]


def _signal_to_itself(pid: int, argument: int) -> Code:
    """Allow any signal but SIGKILL and SIGCONT, so that these always come from outside.

    With the second a session could undo that it is stopped between its calls.
    """
    return [
        _argument(argument),
        _instruction(_EQUAL, signal.SIGKILL, on_true=1),
        _instruction(_EQUAL, signal.SIGCONT, on_false=1),
        _refusal(errno.EPERM),
        _argument(0),
        *_one_of([pid]),
    ]


def _argument(index: int) -> bytes:
    return _instruction(_LOAD, _ARGUMENTS + 8 * index)


def _refusal(number: int) -> bytes:
    return _instruction(_RETURN, _ERRNO | number)


def _instruction(code: int, value: int, *, on_true: int = 0, on_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, on_true, on_false, value & 0xFFFFFFFF)
