"""A slot's scratch directory: the one place its programs may write to, new after each that did."""

from __future__ import annotations

import os

from ctpo.sandbox.jail import file_tree, kernel
from ctpo.sandbox.jail.plan import SCRATCH, SCRATCH_BYTES, SCRATCH_INODES, Plan


class Scratch:
    """A tmpfs in the slot's copy of the file tree; where there is none, a directory of the host's.

    Args:
        plan: Where it is.
        slot: Whose it is.
    """

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
            self.path = os.path.join(plan.host_scratch, str(slot))
        self._made = False
        self._clean: tuple[int, ...] = ()

    @property
    def untouched(self) -> bool:
        """Whether it is empty and the slot's own, as it was made."""
        return self._made and (self._reuse or self._state() == self._clean)

    def renew(self) -> bool:
        """Make it empty and the slot's own, unless it is both already; whether it is a new one."""
        if self.untouched:
            return False
        if self._made:
            self.remove()
        if self._tmpfs:
            flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
            kernel.mount_tmpfs(self.path, flags, self._options)
        else:
            # What a server that was killed left behind is not handed to the next.
            delete_tree(self.path)
            os.mkdir(self.path, 0o700)
            os.chown(self.path, self._uid, -1)
        # Whatever is made in it sets another time, even within the same tick of the clock.
        os.utime(self.path, ns=(0, 0))
        self._made, self._clean = True, self._state()
        return True

    def remove(self) -> None:
        """Throw it away."""
        if self._tmpfs:
            kernel.unmount(self.path)
        else:
            delete_tree(self.path)
        self._made = False

    def _state(self) -> tuple[int, ...]:
        s = os.stat(self.path)
        return (s.st_mode, s.st_uid, s.st_gid, s.st_size, s.st_nlink, s.st_mtime_ns)


def delete_tree(path: str) -> None:
    """Delete a directory and what is in it, as far as that can be done."""
    import shutil  # and with it three libraries that every program would carry

    shutil.rmtree(path, ignore_errors=True)
