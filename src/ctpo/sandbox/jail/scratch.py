"""A slot's scratch directory: the one place its programs may write to, new after each that did."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator

from ctpo.sandbox.jail import file_tree, kernel
from ctpo.sandbox.jail.plan import SCRATCH, SCRATCH_BYTES, SCRATCH_INODES, Plan

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LATE = 1 << 62  # in the year 2116, in nanoseconds


class Scratch:
    """A tmpfs in the slot's copy of the file tree; without one, a directory of the host's."""

    def __init__(self, plan: Plan, slot: int) -> None:
        self._tmpfs = plan.file_tree
        self._reuse = "fresh-scratch" in plan.without
        uid = plan.uid(slot)
        self._uid = os.geteuid() if uid is None else uid
        size = f"size={SCRATCH_BYTES},nr_inodes={SCRATCH_INODES},"
        if "scratch-size" in plan.without:
            size = ""
        self._options = f"{size}mode=700,uid={self._uid},gid={self._uid}"
        if plan.file_tree:
            self.path = file_tree.root_of(slot) + SCRATCH
        else:
            assert plan.host_scratch is not None
            self._above = os.path.join(plan.host_scratch, str(slot))
            self.path = self._above
        self._made = False
        self._clean: tuple[int, ...] = ()

    @property
    def untouched(self) -> bool:
        """Whether it is empty and the slot's own, as it was made."""
        return self._made and (self._reuse or self._state() == self._clean)

    @property
    def left(self) -> str | None:
        """A directory of the host's that is to be deleted before another is made, if there is."""
        return self.path if self._made and not self._tmpfs and not self.untouched else None

    def renew(self) -> bool:
        """Make it empty and the slot's own, unless it is both already; whether it is a new one."""
        if self.untouched:
            return False
        if self._made:
            self.remove()
        if self._tmpfs:
            flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC | kernel.MS_NOATIME
            kernel.mount_tmpfs(self.path, flags, self._options)
        else:
            # A name of its own: what could not be deleted is not handed to the next.
            self.path = f"{self._above}-{time.monotonic_ns()}"
            os.mkdir(self.path, 0o700)
            os.chown(self.path, self._uid, -1)
        # Whatever is made in it sets another time, even within the same tick of the clock. Reading
        # it changes nothing, on mounts with `relatime` because it was read later than written.
        os.utime(self.path, ns=(_LATE, 0))
        self._made, self._clean = True, self._state()
        return True

    def forget(self) -> None:
        """Have the next one made anew; this one was deleted, or could not be."""
        self._made = False

    def remove(self) -> None:
        """Throw it away."""
        if not self._made:
            return
        if self._tmpfs:
            kernel.unmount(self.path)
        else:
            delete_tree(self.path)
        self._made = False

    def _state(self) -> tuple[int, ...]:
        # Times that a program can set back change the last one, which it cannot set.
        s = os.stat(self.path)
        times = (s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns)
        return (s.st_mode, s.st_uid, s.st_gid, s.st_size, s.st_nlink, *times)


def delete_tree(path: str) -> None:
    """Delete a directory and what is in it, as far as that can be done.

    Directories are moved up to the top before they are emptied: however deep they were, neither
    a path nor the stack grows. Nobody else may use the directory meanwhile.
    """
    try:
        top = os.open(path, _DIRECTORY)
    except OSError:
        return
    word = os.urandom(8).hex()  # that no program knew
    moved = (f".{word}-{number}" for number in itertools.count())
    waiting = ["."]
    try:
        while waiting:
            name = waiting.pop()
            with contextlib.suppress(OSError):
                here = os.open(name, _DIRECTORY, dir_fd=top)
                try:
                    waiting += _empty(here, top, moved)
                finally:
                    os.close(here)
                if name != ".":
                    os.rmdir(name, dir_fd=top)
        os.rmdir(path)
    except OSError:
        pass  # somebody else's files are in it
    finally:
        os.close(top)


def _empty(here: int, top: int, moved: Iterator[str]) -> list[str]:
    """Delete the files of a directory; the names in `top` of the directories that were in it."""
    names = []
    for entry in os.listdir(here):
        with contextlib.suppress(OSError):
            try:
                os.unlink(entry, dir_fd=here)
            except IsADirectoryError:
                os.chmod(entry, 0o700, dir_fd=here)
                name = next(moved)
                os.rename(entry, name, src_dir_fd=here, dst_dir_fd=top)
                names.append(name)
    return names
