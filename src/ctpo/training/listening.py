"""How a run tells what it does and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Listener(Protocol):
    """Is told how far a run is; the command line draws progress bars of it."""

    def phase(self, name: str, total: int | None) -> None:
        """A phase of `total` parts begins; None where nobody knows how many it takes."""
        ...

    def progress(self, done: int, total: int | None = None, **numbers: float) -> None:
        """`done` parts of the phase are over; `numbers` are what matters about it.

        `total` is given where it has become known.
        """
        ...


class Quiet:
    """A listener that says nothing."""

    def phase(self, name: str, total: int | None) -> None:
        """Say nothing."""

    def progress(self, done: int, total: int | None = None, **numbers: float) -> None:
        """Say nothing."""


class Stopwatch:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}

    @contextmanager
    def time(self, phase: str) -> Iterator[None]:
        """Count the time of the block to `phase`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(phase, time.perf_counter() - started)

    def add(self, phase: str, seconds: float) -> None:
        """Count seconds to `phase`; negative ones were counted elsewhere."""
        self.phases[phase] = self.phases.get(phase, 0.0) + seconds
