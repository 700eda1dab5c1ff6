import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctpo.sandbox import Sandbox


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(workers=4, timeout=5.0, memory_mb=256, preload=["json"]) as started:
        yield started


@pytest.fixture(scope="session")
def one_worker() -> Iterator[Sandbox]:
    """Every program runs in the same worker, after the one before."""
    with Sandbox(workers=1, timeout=5.0, memory_mb=256, preload=["json"]) as started:
        yield started


class Processes:
    """What this machine's process table says."""

    def server_of(self, sandbox: Sandbox) -> int:
        """The process that everything of a sandbox without preloading descends from."""
        return sandbox._servers.launchers["bare"].pid

    def tree(self, root: int) -> set[int]:
        """The pids of `root` and all that descend from it, zombies not counted."""
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    state, parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:2]
                except OSError:
                    continue
                if state not in "ZX":
                    parents[int(entry.name)] = int(parent)
        found = {root} & parents.keys()
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return found

    def children(self, root: int) -> set[int]:
        """The pids of those whose parent is `root`."""
        return set(map(int, Path(f"/proc/{root}/task/{root}/children").read_text().split()))

    def alive(self, pids: set[int]) -> set[int]:
        return {pid for pid in pids if pid in self.tree(pid)}

    def settles(self, root: int, holds: Callable[[set[int]], bool], seconds: float = 20.0) -> bool:
        """Whether a property of the tree below `root` comes to hold."""
        deadline = time.monotonic() + seconds
        while not (held := holds(self.tree(root))) and time.monotonic() < deadline:
            time.sleep(0.02)
        return held

    def wait_until_gone(self, pids: set[int], seconds: float = 20.0) -> set[int]:
        """The pids that are still there after a while; empty if all is well."""
        deadline = time.monotonic() + seconds
        while (left := self.alive(pids)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left


@pytest.fixture(scope="session")
def processes() -> Processes:
    return Processes()
