"""Somebody without rights, and without a name or a home, as whom root can try what is refused."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctpo.sandbox.jail import kernel

SOMEBODY = 61_234
_NEEDED = (sys.base_prefix, sys.prefix, str(Path(__file__).parents[1]))


def become_somebody() -> None:
    """Be that user from now on, in this process and all that it starts.

    The interpreter may lie where only root may look. A mount namespace of this process's own then
    has it where others may, too.

    Raises:
        OSError: This is not root, or root without the rights to mount.
    """
    closed = {path: _closed_above(path) for path in _NEEDED}
    kernel.unshare(kernel.CLONE_NEWNS)
    kernel.keep_mounts_private()
    trees = {path: kernel.clone_tree(path) for path in sorted(_NEEDED) if closed[path]}
    for place in {place for place in closed.values() if place}:
        kernel.mount_tmpfs(place, 0, "mode=755")
    for path, tree in trees.items():
        os.makedirs(path, exist_ok=True)
        kernel.attach_tree(tree, path)
        os.close(tree)
    os.setgroups([])
    os.setgid(SOMEBODY)
    os.setuid(SOMEBODY)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # else /proc/self still is root's
    for name in ("HOME", "LOGNAME", "USER", "XDG_CACHE_HOME"):
        os.environ.pop(name, None)


def _closed_above(path: str) -> str | None:
    """The uppermost directory on the way that others may not pass."""
    ways = [str(way) for way in reversed(Path(path).parents)]
    return next((way for way in ways if not os.stat(way).st_mode & stat.S_IXOTH), None)


@contextlib.contextmanager
def place_of_somebody() -> Iterator[Path]:
    """A directory of theirs; skips the test where nobody can become them."""
    with tempfile.TemporaryDirectory(prefix="somebody-") as name:
        os.chmod(name, 0o755)
        pid = os.fork()
        if not pid:
            code = 1
            with contextlib.suppress(OSError):
                become_somebody()
                code = not all(os.access(path, os.R_OK | os.X_OK) for path in (*_NEEDED, name))
            os._exit(code)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            pytest.skip("needs root that may mount, and an interpreter that others may read")
        give_to_somebody(path := Path(name) / "theirs")
        yield path


def give_to_somebody(path: Path) -> None:
    """Make a directory theirs with all that is in it; and make it if it is not there."""
    path.mkdir(exist_ok=True)
    for each in (path, *path.rglob("*")):
        shutil.chown(each, SOMEBODY, SOMEBODY)
