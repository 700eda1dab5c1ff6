"""How a process's memory lies, which decides what forks of it cost.

`docs/sandbox.md` has what each of these is worth.
"""

from __future__ import annotations

import ctypes
import itertools
import os

_MADV_COLLAPSE, _HUGE = 25, 2 << 20
_PROT_READ, _PROT_WRITE, _PROT_EXEC = 1, 2, 4
_MAP_ANONYMOUS, _MREMAP_TO, _FAILED = 0x22, 3, ctypes.c_size_t(-1).value

_libc = ctypes.CDLL(None)
_libc.mmap.restype = _libc.mremap.restype = ctypes.c_size_t
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
_libc.mremap.argtypes = (*[ctypes.c_size_t] * 3, ctypes.c_int, ctypes.c_size_t)
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


def _regions() -> list[list[str]]:
    """The fields of each line of /proc/self/maps: addresses, access, ..., file."""
    with open("/proc/self/maps") as lines:
        return [line.split() for line in lines]


def _bounds(fields: list[str]) -> tuple[int, int]:
    start, end = fields[0].split("-")
    return int(start, 16), int(end, 16)


def use_huge_pages() -> int:
    """Ask for huge pages under this process's anonymous memory, which makes it cheap to fork.

    Returns:
        Bytes that were collapsed; 0 where the kernel cannot (before Linux 6.1).
    """
    collapsed = 0
    for fields in _regions():
        if len(fields) > 5 and fields[5] != "[heap]" or fields[1] != "rw-p":
            continue
        start, end = _bounds(fields)
        start, end = -(-start // _HUGE) * _HUGE, end // _HUGE * _HUGE
        if end <= start:
            continue
        memory = ctypes.c_void_p(start)
        if _libc.madvise(memory, ctypes.c_size_t(end - start), _MADV_COLLAPSE) == 0:
            collapsed += end - start
    return collapsed


def use_huge_pages_for_code() -> int:
    """Copy code to huge pages in its place: forks then have it, and need not ask for each piece.

    To be called when the process has one thread and before it has confined itself.

    Returns:
        Bytes that were moved; 0 where the kernel cannot (before Linux 6.1), or it was not tried.
    """
    moved = 0
    if os.uname().machine != "x86_64":
        return moved  # elsewhere processors must be told that memory has become code
    for fields in _regions():
        start, end = _bounds(fields)
        start, end = -(-start // _HUGE) * _HUGE, end // _HUGE * _HUGE
        size = end - start
        if fields[1] != "r-xp" or size <= 0:
            continue
        room = _libc.mmap(None, size + _HUGE, _PROT_READ | _PROT_WRITE, _MAP_ANONYMOUS, -1, 0)
        if room == _FAILED:
            continue
        copy = -(-room // _HUGE) * _HUGE
        ctypes.memmove(copy, start, size)
        if (
            _libc.madvise(ctypes.c_void_p(copy), ctypes.c_size_t(size), _MADV_COLLAPSE) == 0
            and _libc.mprotect(ctypes.c_void_p(copy), size, _PROT_READ | _PROT_EXEC) == 0
            and _libc.mremap(copy, size, size, _MREMAP_TO, start) == start
        ):
            moved += size
            _libc.munmap(room, copy - room)
            _libc.munmap(copy + size, room + _HUGE - copy)
        else:
            _libc.munmap(room, size + _HUGE)
    return moved


def join_mappings(*, linked: bool = True) -> None:
    """Have the kernel keep two records of a library's memory instead of five, for cheaper forks.

    A library is mapped as headers, code, constants, what is constant once it is linked, and data.
    The first three become readable and executable, the last two writable: neighbours that may be
    used alike, and are of one file, are one to the kernel. Nothing is writable and executable.

    Args:
        linked: Whether to do so with the last two.
    """
    regions = _regions()
    with_code = {fields[-1] for fields in regions if fields[1] == "r-xp" and len(fields) > 5}
    for fields, after in itertools.pairwise([*regions, ["0-0", "----", ""]]):
        if fields[1] != "r--p" or fields[-1] not in with_code:
            continue
        start, end = _bounds(fields)
        if after[1] != "rw-p" or after[-1] != fields[-1]:
            access = _PROT_READ | _PROT_EXEC
        elif linked:
            access = _PROT_READ | _PROT_WRITE
        else:
            continue
        _libc.mprotect(start, end - start, access)  # where it is refused, nothing is lost
