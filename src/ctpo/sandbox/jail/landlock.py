"""Landlock: what a program may open and change, whatever the mounts and modes say.

https://docs.kernel.org/userspace-api/landlock.html. System calls that no libc wraps; the
last of them, which puts a ruleset in force, is among a child's `kernel.Steps`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping

from ctpo.sandbox.jail import kernel

_CREATE, _ADD = 444, 445  # the same on every architecture
_VERSION_FLAG, _PATH_BENEATH = 1, 1

READ = 1 << 2 | 1 << 3  # files and directories; executing is refused to everyone
WRITE = 1 << 1
_TRUNCATE = 1 << 14
_OF_A_FILE = 1 << 2 | WRITE | _TRUNCATE
# Write, remove directory and file, make directory and file and link, rename across, truncate.
# Not: devices, sockets, FIFOs.
CHANGE = READ | WRITE | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 13 | _TRUNCATE
# Handled rights by ABI version: refer came with 2, truncate with 3, ioctl on devices with 5.
_FILES = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_ALL_FILES = (1 << 16) - 1
_TCP = 3  # bind and connect, version 4
_SCOPES = 3  # abstract sockets and signals, version 6


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scopes", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """The kernel's ABI version.

    Raises:
        OSError: It has none, or it is switched off.
    """
    return kernel.syscall("landlock", _CREATE, None, 0, _VERSION_FLAG)


def words(abi: int) -> str:
    """What an ABI version covers."""
    return "files" + (", TCP" if abi >= 4 else "") + (", signals" if abi >= 6 else "")


def open_paths(rights: Mapping[str, int]) -> list[tuple[int, int]]:
    """Descriptors of paths, each with its rights; paths that are not there are left out."""
    opened = []
    for path, allowed in rights.items():
        if os.path.exists(path):
            of_a_file = allowed if os.path.isdir(path) else allowed & _OF_A_FILE
            opened.append((os.open(path, os.O_PATH | os.O_CLOEXEC), of_a_file))
    return opened


def ruleset(rules: Iterable[tuple[int, int]], abi: int) -> int:
    """A descriptor of rules: no rights on files but these, no TCP, no signals to others.

    Args:
        rules: Descriptors of files and directories, each with the rights beneath it.
        abi: The kernel's version.
    """
    files = _FILES.get(abi, _ALL_FILES)
    attributes = _Ruleset(files, _TCP if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    # A kernel that knows less takes a shorter struct.
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    handle = kernel.syscall("landlock_create_ruleset", _CREATE, ctypes.byref(attributes), size, 0)
    for descriptor, allowed in rules:
        rule = _Beneath(allowed & files, descriptor)
        pointer = ctypes.byref(rule)
        kernel.syscall("landlock_add_rule", _ADD, handle, _PATH_BENEATH, pointer, 0)
    return handle
