"""The one directory a program may write to: new before each run, gone after it."""

from __future__ import annotations

import os
import shutil

from ctpo.sandbox import kernel
from ctpo.sandbox.plan import SCRATCH_BYTES, SCRATCH_INODES, Plan


class Scratch:
    """A tmpfs in the cell's own view, or a directory of the host's where there is no view.

    Args:
        plan: Where it is and whose it is.
    """

    def __init__(self, plan: Plan) -> None:
        self._path = plan.scratch
        self._tmpfs = plan.namespaces
        self._uid = os.geteuid() if plan.uid is None else plan.uid

    def create(self) -> None:
        """Make it, empty and the program's own."""
        if self._tmpfs:
            flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
            kernel.mount_tmpfs(
                self._path,
                flags,
                f"size={SCRATCH_BYTES},nr_inodes={SCRATCH_INODES},mode=700,"
                f"uid={self._uid},gid={self._uid}",
            )
        else:
            # What a cell that was killed left behind is not handed to the next.
            shutil.rmtree(self._path, ignore_errors=True)
            os.mkdir(self._path, 0o700)
            os.chown(self._path, self._uid, -1)

    def remove(self) -> None:
        """Throw it away."""
        if self._tmpfs:
            kernel.unmount(self._path)
        else:
            shutil.rmtree(self._path)
