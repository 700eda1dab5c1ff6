"""The Linux calls that Python 3.11 does not offer, each raising `OSError` that names it.

ctypes and not a package: python-prctl, pyroute2, landlock and pyseccomp each wrap a part, most need
a compiler or a system library, and what is used here is fifteen calls. This module, `memory`,
`seccomp` and `landlock` are all there is to audit.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
_CLONE_PARENT, _SIGCHLD = 0x8000, 17

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME = 0x2, 0x4, 0x8, 0x400
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_MNT_DETACH = 2

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2

# These numbers are the same on every architecture, as for all calls since Linux 5.1.
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_CLOSE_RANGE, _SYS_MOUNT_SETATTR = 428, 429, 436, 442
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 1, 4
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
_libc_with_gil = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = _libc_with_gil.syscall.restype = ctypes.c_long
CAPABILITY_HEADER = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
NO_CAPABILITIES = (ctypes.c_uint32 * 6)()
# Numbers on each of these machines.
_MACHINES = ("x86_64", "aarch64")
CALLS = {
    "setsid": (112, 157),
    "chroot": (161, 51),
    "chdir": (80, 49),
    "prctl": (157, 167),
    "landlock_restrict_self": (446, 446),
    "close_range": (436, 436),
    "setgroups": (116, 159),
    "setresgid": (119, 149),
    "setresuid": (117, 147),
    "capset": (126, 91),
    "prlimit64": (302, 261),
    "clone": (56, 220),
}


class _FilterHeader(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def _check(result: int, call: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def syscall(call: str, number: int, *arguments: object) -> int:
    """Make a system call that libc does not wrap."""
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _check(_libc.syscall(ctypes.c_long(number), *wide), call)


def unshare(flags: int) -> None:
    """Enter new namespaces."""
    _check(_libc.unshare(flags), "unshare")


def prctl(option: int, value: int) -> None:
    """Set one process attribute."""
    arguments = [ctypes.c_ulong(a) for a in (value, 0, 0, 0)]
    _check(_libc.prctl(option, *arguments), f"prctl {option}")


def number_of(call: str) -> ctypes.c_long:
    """The number of one of `CALLS` here.

    Raises:
        OSError: Those of this machine are not known.
    """
    machine = os.uname().machine
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no numbers of system calls known for {machine}")
    return ctypes.c_long(CALLS[call][_MACHINES.index(machine)])


def fork() -> int:
    """Fork without what Python does in the child after `os.fork`, which costs as much as the rest.

    That is: locks and the list of threads made anew, which a process with one thread, whose locks
    nobody else can hold, does not need (`PyDLL` keeps the GIL over the call); and handlers such as
    that of `random`, which seeds itself, whose place `program.seed_all` takes. In the child
    `threading.main_thread().native_id` is that of the parent.

    Raises:
        OSError: There is no memory, or a limit is met.
    """
    return _check(_libc_with_gil.fork(), "fork")


class Sibling:
    """A fork that is a child of this process's own parent, which reaps it; otherwise as `fork`.

    libc has no call for it, and so does not note the new thread's id: what asks the main thread's
    by its `pthread_t` gets that of the process it is a copy of.
    """

    def __init__(self) -> None:
        flags = ctypes.c_ulong(_CLONE_PARENT | _SIGCHLD)
        self._arguments = (number_of("clone"), flags, *(ctypes.c_long(0) for _ in range(4)))

    def fork(self) -> int:
        """Fork.

        Raises:
            OSError: There is no memory, or a limit is met.
        """
        return _check(_libc_with_gil.syscall(*self._arguments), "clone")


class Steps:
    """System calls to be made one after the other, laid out before they are needed.

    A child makes fifteen of them. Going through one loop with everything at hand, it touches a
    fifth of the memory that as many functions would, and touching shared memory is what it costs.
    """

    def __init__(self) -> None:
        self._calls: list[tuple[object, ...]] = []
        self._names: list[str] = []
        self._below, self._above = ctypes.c_long(), ctypes.c_long()

    def add_close(self) -> None:
        """Append the closing of every descriptor but the standard ones and the one of `keep`."""
        self.add("close_range", ctypes.c_long(3), self._below, 0)
        self.add("close_range", self._above, 0x7FFFFFFF, 0)

    def keep(self, descriptor: int) -> None:
        """Say which descriptor is to stay open; above 3."""
        self._below.value, self._above.value = descriptor - 1, descriptor + 1

    def add(self, name: str, *arguments: object) -> None:
        """Append a call.

        Args:
            name: Of the call, one of `CALLS`.
            arguments: Numbers, pointers as bytes or ctypes arrays, `None` for a null pointer.
        """
        wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
        self._calls.append((number_of(name), *wide))
        self._names.append(name)

    def take(self) -> None:
        """Make the calls.

        Raises:
            OSError: One was refused.
        """
        call = _libc.syscall
        for arguments in self._calls:
            if call(*arguments) < 0:
                _check(-1, self._names[self._calls.index(arguments)])


class FilterCode:
    """A seccomp filter, laid out for the kernel before it is needed.

    Args:
        program: Classic BPF, eight bytes an instruction.

    Attributes:
        code: The program, to be changed in place.
    """

    def __init__(self, program: bytes) -> None:
        self.code = ctypes.create_string_buffer(program, len(program))
        self._header = _FilterHeader(len(program) // 8, ctypes.cast(self.code, ctypes.c_void_p))
        self._arguments = (
            ctypes.c_ulong(_SECCOMP_MODE_FILTER),
            ctypes.byref(self._header),
            ctypes.c_ulong(0),
            ctypes.c_ulong(0),
        )

    def install(self) -> None:
        """Let it decide on every later system call, here and in all descendants."""
        _check(_libc.prctl(PR_SET_SECCOMP, *self._arguments), "prctl PR_SET_SECCOMP")


def mount_tmpfs(target: str, flags: int, options: str) -> None:
    """Mount a fresh tmpfs at `target`."""
    result = _libc.mount(
        b"ctpo", os.fsencode(target), b"tmpfs", ctypes.c_ulong(flags), options.encode()
    )
    _check(result, f"mount tmpfs at {target}")


def unmount(target: str) -> None:
    """Detach what is mounted at `target`, at once for everyone."""
    _check(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"umount {target}")


def keep_mounts_private() -> None:
    """Let no mount of this namespace reach another."""
    flags = ctypes.c_ulong(_MS_REC | _MS_PRIVATE)
    _check(_libc.mount(b"none", b"/", None, flags, None), "make mounts private")


def clone_tree(path: str) -> int:
    """A detached copy of the mounts at and under `path`, as a descriptor."""
    flags = _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC
    return syscall(f"open_tree {path}", _SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags)


def restrict_tree(tree: int, attributes: int) -> None:
    """Set `MOUNT_ATTR_*` on a mount and all mounts under it (Linux 5.12)."""
    attribute_words = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    syscall(
        "mount_setattr",
        _SYS_MOUNT_SETATTR,
        tree,
        b"",
        _AT_EMPTY_PATH | _AT_RECURSIVE,
        ctypes.cast(attribute_words, ctypes.c_void_p),
        ctypes.sizeof(attribute_words),
    )


def attach_tree(tree: int, target: str) -> None:
    """Attach a detached tree at `target`."""
    syscall(
        f"move_mount {target}",
        _SYS_MOVE_MOUNT,
        tree,
        b"",
        _AT_FDCWD,
        os.fsencode(target),
        _MOVE_MOUNT_F_EMPTY_PATH,
    )


def change_root(new_root: str) -> None:
    """Make the mount at `new_root` the root and let go of the old one."""
    os.chdir(new_root)
    # Both names are the same directory: the old root is stacked on the new one, then detached.
    _check(_libc.pivot_root(b".", b"."), "pivot_root")
    unmount(".")
    os.chdir("/")


def close_all_except(keep: Iterable[int]) -> None:
    """Close every descriptor that is not in `keep` (Linux 5.9).

    Not `os.closerange`: on a Python built for an old libc that closes them one by one.
    """
    low = 0
    for descriptor in sorted(set(keep)):
        if low < descriptor:
            syscall("close_range", _SYS_CLOSE_RANGE, low, descriptor - 1, 0)
        low = descriptor + 1
    syscall("close_range", _SYS_CLOSE_RANGE, low, 0x7FFFFFFF, 0)
