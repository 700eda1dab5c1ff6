"""Places for programs: each holds a connection to a cell, and they are handed out in order."""

from __future__ import annotations

import contextlib
import os
import queue
import select
import socket
import threading
from collections import deque

from ctpo.sandbox import wire
from ctpo.sandbox.execution import Execution, hard_wall_seconds

# Beyond the hard bound on a program's wall time: then the cell itself is stuck.
_GRACE_SECONDS = 30.0


class Slot:
    """A place for one program at a time, with a connection to a cell once it has been used.

    Args:
        number: Tells the places of a sandbox apart.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.cell: socket.socket | None = None

    def drop(self) -> None:
        """Let go of the cell; the next use gets another."""
        if self.cell is not None:
            # Not just close: a fork of the caller may hold a duplicate.
            with contextlib.suppress(OSError):
                self.cell.shutdown(socket.SHUT_RDWR)
            self.cell.close()
            self.cell = None

    def usable(self) -> bool:
        """Whether there is a cell that has not hung up while it was idle."""
        if self.cell is None:
            return False
        idle = select.poll()
        idle.register(self.cell, select.POLLIN)
        return not idle.poll(0)

    def execute(
        self, code: bytes, stdin: bytes, *, timeout: float, queue_seconds: float
    ) -> Execution:
        """Have the cell run a program.

        Args:
            code: The program.
            stdin: Its standard input.
            timeout: Seconds of its own time.
            queue_seconds: How long it has waited for this place.

        Raises:
            OSError: The cell is gone or does not answer.
            EOFError: The cell is gone.
        """
        assert self.cell is not None
        descriptors: list[int] = []
        try:
            for text in [code, stdin] if stdin else [code]:
                descriptors.append(os.memfd_create("ctpo-program", os.MFD_CLOEXEC))
                with open(descriptors[-1], "wb", closefd=False) as file:
                    file.write(text)
                os.lseek(descriptors[-1], 0, os.SEEK_SET)
            self.cell.settimeout(hard_wall_seconds(timeout) + _GRACE_SECONDS)
            wire.send(self.cell, {"timeout": timeout}, descriptors=descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        answer, (stdout, stderr), _ = wire.receive(self.cell)
        if answer.pop("last"):
            self.drop()
        return Execution(
            stdout=stdout.decode("utf-8", "replace"),
            stderr=stderr.decode("utf-8", "replace"),
            queue_seconds=queue_seconds,
            **answer,
        )


class Slots:
    """The places of one sandbox, for many threads; who waits first is served first.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = [Slot(number) for number in range(count)]
        self._waiting: deque[queue.SimpleQueue[Slot]] = deque()
        self._lock = threading.Lock()

    def take(self) -> Slot:
        """A place nobody else has, preferably one with a cell; waits until there is one."""
        with self._lock:
            if self._free:
                return self._free.pop()
            ticket: queue.SimpleQueue[Slot] = queue.SimpleQueue()
            self._waiting.append(ticket)
        try:
            return ticket.get()
        except BaseException:
            # Interrupted: what was or will be put on the ticket must not be lost.
            with self._lock:
                waiting = ticket in self._waiting
                if waiting:
                    self._waiting.remove(ticket)
            if not waiting:
                self.give_back(ticket.get())
            raise

    def give_back(self, slot: Slot) -> None:
        """Hand the place to whoever waits longest."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().put(slot)
            else:
                self._free.append(slot)

    def drop_idle(self) -> None:
        """Let go of the cells of all places nobody has."""
        with self._lock:
            for slot in self._free:
                slot.drop()
