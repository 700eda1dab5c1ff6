"""An interpreter that keeps its state for the length of an episode."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Self, Unpack

from ctpo.sandbox.execution import Execution
from ctpo.sandbox.program import Options, Program

if TYPE_CHECKING:
    from ctpo.sandbox.client.dispatcher import Dispatcher
    from ctpo.sandbox.client.job import Job
    from ctpo.sandbox.client.requests import Requests


class SessionOver(RuntimeError):
    """The session's interpreter is gone, and what earlier calls left with it."""


class Session:
    """One jailed interpreter: each call runs in what the earlier ones left. One call at a time.

    Every call has the limits of a program of its own. A call that meets one of them, or ends the
    process, ends the session: its `Execution` says so by its status, later ones raise.
    """

    def __init__(
        self,
        number: int,
        lane: str,
        dispatcher: Dispatcher,
        requests: Requests,
        most: int,
    ) -> None:
        self._number = number
        self._lane = lane
        self._dispatcher = dispatcher
        self._requests = requests
        self._last: Job | None = None
        self._lock = threading.Lock()
        self._closed = False
        dispatcher.open_session(number, most)

    @property
    def over(self) -> bool:
        """Whether the interpreter is gone."""
        # Asked of the last call and not noted by it: whoever waits for one goes on before its
        # future's callbacks have run.
        call = self._last
        if self._closed or call is None or not call.future.done():
            return self._closed
        return call.over or call.future.cancelled()

    def submit(
        self, code: str | Program, *, echo: bool = False, **options: Unpack[Options]
    ) -> Future[Execution]:
        """Ask for code to be run in the session.

        Args:
            code: Python source, or a `Program`, which has options of its own.
            echo: Whether to show the value of the last expression, as a notebook does.
            options: As for `Sandbox.submit`. Files are written before; a lower `memory_mb` stays.

        Raises:
            SessionOver: The interpreter is gone.
            RuntimeError: Another call is at work.
            TypeError: As in `Sandbox.submit`.
            ValueError: As in `Sandbox.submit`.
        """
        if self.over:
            raise SessionOver("the session is over: its interpreter has ended")
        job = self._requests.job(Program.of(code, options), flow=self)
        job.lane, job.session, job.echo = self._lane, self._number, echo
        with self._lock:
            before = self._last
            if before is not None and not before.future.done():
                raise RuntimeError("a session runs one call at a time")
            job.first = before is None
            self._last = job
        try:
            self._dispatcher.submit(job)
        except BaseException:
            self._last = before
            raise
        return job.future

    def run(
        self, code: str | Program, *, echo: bool = False, **options: Unpack[Options]
    ) -> Execution:
        """Run code in the session and wait for it; arguments and errors as in `submit`."""
        return wait_for(self.submit(code, echo=echo, **options))

    async def arun(
        self, code: str | Program, *, echo: bool = False, **options: Unpack[Options]
    ) -> Execution:
        """As `run`, for asyncio."""
        return await asyncio.wrap_future(self.submit(code, echo=echo, **options))

    def close(self) -> None:
        """End the interpreter."""
        self._closed = True
        self._dispatcher.end_session(self._number, self._lane)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def wait_for(future: Future[Execution]) -> Execution:
    """The outcome; whoever is interrupted meanwhile wants it no more."""
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
