from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctpo.sandbox import Sandbox
from tests.waiting import eventually


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
        """The pids of those whose parent is `root`; none if it is gone."""
        try:
            return set(map(int, Path(f"/proc/{root}/task/{root}/children").read_text().split()))
        except (FileNotFoundError, ProcessLookupError):
            return set()

    def fork_servers(self, server: int, count: int = 1) -> list[int]:
        """The fork servers of a started server process, as many as it is to have.

        Each is the first process of a pid namespace, the only child of the process that made it.
        The one that was tried out before them may still be ending.
        """

        def found() -> list[int]:
            return sorted(pid for maker in self.children(server) for pid in self.children(maker))

        return eventually(found, lambda pids: len(pids) == count, "as many fork servers")

    def alive(self, pids: set[int]) -> set[int]:
        return {pid for pid in pids if pid in self.tree(pid)}

    def settles(self, root: int, holds: Callable[[set[int]], object]) -> set[int]:
        """The tree below `root` once a property of it has come to hold."""
        return eventually(lambda: self.tree(root), holds, f"that state of the tree below {root}")

    def wait_until_gone(self, pids: set[int]) -> None:
        eventually(lambda: self.alive(pids), lambda left: not left, f"the end of {pids}")


@pytest.fixture(scope="session")
def processes() -> Processes:
    return Processes()
