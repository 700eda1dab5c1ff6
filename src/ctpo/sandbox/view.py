"""The file system as a program sees it: a read-only tree of just the interpreter and libraries."""

from __future__ import annotations

import os
import sys

from ctpo.sandbox import kernel

# Not /tmp: a virtual environment may live there and has to keep its path.
SCRATCH = "/sandbox"

_SYSTEM = (
    "/usr",
    "/lib",
    "/lib32",
    "/lib64",
    "/bin",
    "/nix/store",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/localtime",
)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
# Of a prefix only what Python needs: a virtual environment may be made in a project's own folder.
_OF_A_PREFIX = ("bin", "lib", "lib64", "pyvenv.cfg")
_STAGE = "/tmp"


def enter() -> None:
    """Replace the root of this mount namespace by the view, with an empty `SCRATCH`.

    Raises:
        OSError: The kernel refused a step; the message names it.
    """
    kernel.keep_mounts_private()
    links = {path: os.readlink(path) for path in _visible() if os.path.islink(path)}
    trees = {path: _detached(path) for path in _visible() if path not in links}
    kernel.mount_tmpfs(_STAGE, kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m,mode=755")
    for path, tree in trees.items():
        target = _STAGE + path
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isdir(tree):
            os.makedirs(target, exist_ok=True)
        else:
            os.close(os.open(target, os.O_CREAT | os.O_CLOEXEC, 0o644))
        kernel.attach_tree(tree, target)
        os.close(tree)
    for path, link in links.items():
        os.makedirs(os.path.dirname(_STAGE + path), exist_ok=True)
        os.symlink(link, _STAGE + path)
    os.mkdir(_STAGE + SCRATCH)
    if not os.path.lexists(_STAGE + "/tmp"):
        os.symlink(SCRATCH, _STAGE + "/tmp")
    kernel.change_root(_STAGE)
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    kernel.restrict_tree(root, kernel.MOUNT_ATTR_RDONLY)
    os.close(root)


def _visible() -> list[str]:
    prefixes = (sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix)
    parts = [os.path.join(prefix, name) for prefix in prefixes for name in _OF_A_PREFIX]
    visible: list[str] = []
    for path in (*_SYSTEM, *_DEVICES, *parts):
        covered = any(path == other or path.startswith(other + "/") for other in visible)
        if os.path.lexists(path) and not covered:
            visible.append(path)
    return visible


def _detached(path: str) -> int:
    attributes = kernel.MOUNT_ATTR_NOSUID
    if path not in _DEVICES:
        attributes |= kernel.MOUNT_ATTR_NODEV
    tree = kernel.clone_tree(path)
    kernel.restrict_tree(tree, attributes)
    return tree
