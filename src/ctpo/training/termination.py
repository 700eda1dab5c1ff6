"""What SIGTERM and SIGHUP do: end at once where nothing is lost, else behind a checkpoint."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Terminated(SystemExit):
    """A signal asked this process to end. Uncaught, the exit code is the usual 128 + number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


class Termination:
    """Whether this process was asked to end; use it through `terminable`.

    Attributes:
        asked: The signal that came where it could not be obeyed at once, or None.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self._deferring = False

    def handle(self, number: int, _: FrameType | None) -> None:
        """Be told of a signal; the second one does not wait."""
        if self._deferring and self.asked is None:
            self.asked = number
            # Not print: the signal may have come in the middle of one.
            os.write(2, f"{signal.Signals(number).name}: ends after this batch\n".encode())
            return
        raise Terminated(number)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let the block reach a boundary of its own; `Terminated` is raised behind it."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        if self.asked is not None:
            raise Terminated(self.asked)


@contextmanager
def terminable() -> Iterator[Termination]:
    """Have SIGTERM and SIGHUP raise `Terminated` in the block, as Ctrl-C raises its own."""
    termination = Termination()
    with handled(_SIGNALS, termination.handle):
        yield termination


@contextmanager
def handled(
    numbers: Iterable[signal.Signals], handle: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
    """Have signals call `handle` in the block.

    A signal that is ignored, as under nohup, stays so. Signals reach the main thread only; in
    another nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
