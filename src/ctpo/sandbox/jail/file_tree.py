"""The file system as a program sees it: a read-only tree of just the interpreter and libraries.

The tree is built once for a fork server. Every slot has a copy of it under `/.slots`, with a
scratch directory of its own mounted in it, which becomes the root of the slot's programs: they all
see the same paths and nothing of each other.
"""

from __future__ import annotations

import os
import sys

from ctpo.sandbox.jail import kernel
from ctpo.sandbox.jail.plan import SCRATCH

_SYSTEM = (
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local/lib",
    "/usr/share/zoneinfo",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/localtime",
)
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
# Of a prefix only what Python needs: a virtual environment may be made in a project's own folder.
_OF_A_PREFIX = ("lib", "lib64", "pyvenv.cfg")
_STAGE = "/tmp"
_SLOTS = "/.slots"


def enter(slots: int) -> None:
    """Replace the root of this mount namespace by the tree and its copies.

    Raises:
        OSError: The kernel refused a step; the message names it.
    """
    kernel.keep_mounts_private()
    links = {path: os.readlink(path) for path in visible() if os.path.islink(path)}
    trees = {path: _detached(path) for path in visible() if path not in links}
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
    os.mkdir(_STAGE + _SLOTS, 0o700)
    for slot in range(slots):
        os.mkdir(_STAGE + root_of(slot))
    kernel.change_root(_STAGE)
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    kernel.restrict_tree(root, kernel.MOUNT_ATTR_RDONLY)
    os.close(root)
    copies = [kernel.clone_tree("/") for _ in range(slots)]  # before one is part of another
    for slot, copy in enumerate(copies):
        kernel.attach_tree(copy, root_of(slot))
        os.close(copy)


def root_of(slot: int) -> str:
    """Where a slot's copy of the tree is."""
    return f"{_SLOTS}/{slot}"


def visible() -> list[str]:
    """Paths of which programs see what is there, each not within another."""
    prefixes = (sys.base_prefix, sys.base_exec_prefix, sys.prefix, sys.exec_prefix)
    parts = [os.path.join(prefix, name) for prefix in prefixes for name in _OF_A_PREFIX]
    found: list[str] = []
    for path in (*_SYSTEM, *DEVICES, *parts, *_elsewhere()):
        covered = any(path == other or path.startswith(other + "/") for other in found)
        if os.path.lexists(path) and not covered:
            found.append(path)
    return found


def _elsewhere() -> list[str]:
    """Packages installed outside the prefixes, as Debian does; not a project's own source."""
    return [path for path in sys.path if path.rstrip("/").endswith(("-packages", "lib-dynload"))]


def _detached(path: str) -> int:
    attributes = kernel.MOUNT_ATTR_NOSUID
    if path not in DEVICES:
        attributes |= kernel.MOUNT_ATTR_NODEV
    tree = kernel.clone_tree(path)
    kernel.restrict_tree(tree, attributes)
    return tree
