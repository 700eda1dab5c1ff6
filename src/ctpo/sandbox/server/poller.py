"""What a fork server waits for: descriptors, each with what it belongs to."""

from __future__ import annotations

import os
import select
from typing import Generic, TypeVar

from ctpo.sandbox.server.slot import Process

Owner = TypeVar("Owner")


class Poller(Generic[Owner]):
    """Descriptors that are waited for together, each with what it belongs to."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._owners: dict[int, Owner] = {}

    def add(self, descriptor: int, owner: Owner) -> None:
        """Wait for a descriptor, too."""
        self._owners[descriptor] = owner
        self._poll.register(descriptor, select.POLLIN)

    def drop(self, descriptor: int) -> None:
        """Wait for it no more, if it was waited for; to be called before it is closed."""
        if self._owners.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def close(self, process: Process) -> None:
        """Wait no more for the end of a process that has been reaped."""
        self.drop(process.end)
        os.close(process.end)

    def wait(self, seconds: float | None) -> list[Owner]:
        """The owners of those that can be read, once one can or the time is up."""
        ready = self._poll.poll(None if seconds is None else seconds * 1000)
        return [self._owners[descriptor] for descriptor, _ in ready]
