"""The server processes of a sandbox: their step of the ladder, and their replacement."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Sequence

from ctpo.sandbox import wire
from ctpo.sandbox.client.connection import Connection
from ctpo.sandbox.client.launcher import Launcher, LauncherGone
from ctpo.sandbox.protections import (
    LIMITS_ONLY,
    RUNGS,
    SYSTEM_CALLS,
    Protections,
    SandboxUnavailable,
)

# Programs of one fork server, and children it holds ready beyond them: a program that ends makes
# room at once, while its successor still shuts its jail.
_PER_FORK_SERVER, _SPARE = 8, 2
BARE, LOADED, SESSIONS = "bare", "loaded", "sessions"


class ForkServers:
    """Zygotes and the fork servers they make.

    Args:
        preload: Modules that programs of the lane `LOADED` start with.
        limits: `memory_bytes` and `output_bytes` of a program.
        without: Protections that are switched off.
        allow_weak: Whether limits alone will do.

    Attributes:
        restarts: How often a zygote was replaced after it died.
        protections: What was found; `None` before `climb`.
    """

    def __init__(
        self,
        preload: Sequence[str],
        limits: dict[str, int],
        without: frozenset[str],
        *,
        allow_weak: bool,
    ) -> None:
        self._preload = tuple(preload)
        self._limits = limits
        self._without = without
        self._allow_weak = allow_weak
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._closed = False
        self._rung = LIMITS_ONLY
        self._hello: wire.Header = {}
        self.launchers: dict[str, Launcher] = {}
        self.protections: Protections | None = None
        self.restarts = 0

    def climb(self, workers: int, add: Callable[[Connection], None]) -> None:
        """Find the first rung of the ladder that carries a program, and fill it.

        Args:
            workers: How many programs are to run at once.
            add: Takes each new fork server.

        Raises:
            SandboxUnavailable: There is none, or only one that is not allowed.
        """
        refusals: list[str] = []
        for rung in RUNGS:
            if rung == LIMITS_ONLY and not self._allow_weak:
                raise SandboxUnavailable(
                    "this machine allows no confinement worth the name:\n"
                    + "\n".join(f"  {refusal}" for refusal in refusals)
                    + "\nallow_weak=True runs programs with limits only: they can then read, write"
                    " and reach whatever their caller can"
                )
            self._rung = rung
            try:
                self._fill(workers, add)
            except (OSError, LauncherGone) as error:
                refusals.append(f"{rung}: {error}")
                continue
            self.protections = Protections.found(
                self._hello["in_force"], self._hello["missing"], rung, "; ".join(refusals)
            )
            return
        raise SandboxUnavailable("no program could be run:\n" + "\n".join(refusals))

    def connection(self, lane: str, slots: int) -> Connection:
        """The place of a fork server that is not there yet."""
        return Connection(lane, next(self._numbers), slots)

    def connect(self, connection: Connection) -> socket.socket:
        """Start the fork server of a connection; the socket to it.

        Raises:
            OSError: It could not be confined as the others are.
            LauncherGone: Nothing answers.
            SandboxUnavailable: The server process does not start.
        """
        name = LOADED if connection.lane != BARE and self._preload else BARE
        with self._lock:
            if self._closed:
                raise LauncherGone("the sandbox was closed")
            request = {
                "number": connection.number,
                "rung": self._rung,
                "slots": connection.slots,
                "ahead": connection.lane != SESSIONS,
                "without": sorted(self._without),
                **self._limits,
            }
            link, self._hello = self._launcher(name).new_fork_server(request)
        connection.usable = True
        if self.protections is not None:
            lost = set(self.protections.in_force) - set(self._hello["in_force"])
            if lost:
                link.close()
                raise LauncherGone("a new fork server lacks: " + "; ".join(sorted(lost)))
        return link

    def close(self) -> None:
        """End all of them; returns when they are gone."""
        with self._lock:
            self._closed = True
            for launcher in self.launchers.values():
                launcher.close()
            self.launchers.clear()

    def _fill(self, workers: int, add: Callable[[Connection], None]) -> None:
        self.connect(self.connection(BARE, 1)).close()
        # Where programs can fork, each has a fork server of its own, which kills all that is left.
        alone = SYSTEM_CALLS not in self._hello["in_force"]
        count = workers if alone else -(-workers // _PER_FORK_SERVER)
        slots = 1 if alone else -(-workers // count) + _SPARE
        for lane in (BARE, LOADED) if self._preload else (BARE,):
            for _ in range(count):
                add(self.connection(lane, slots))

    def _launcher(self, name: str) -> Launcher:
        launcher = self.launchers.get(name)
        if launcher is not None and not launcher.alive():
            launcher.close()
            self.restarts += 1
            launcher = None
        if launcher is None:
            launcher = self.launchers[name] = Launcher(
                self._preload if name == LOADED else (),
                environment="environment" not in self._without,
            )
        return launcher
