"""An interpreter that keeps its state for the length of an episode."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ctpo.sandbox.execution import Execution

if TYPE_CHECKING:
    from ctpo.sandbox.client.dispatcher import Dispatcher
    from ctpo.sandbox.client.job import Job
    from ctpo.sandbox.client.requests import Intake


class SessionOver(RuntimeError):
    """The session's interpreter is gone, and what earlier calls left with it."""


class Session:
    """One jailed interpreter: each call runs in what the earlier ones left. One call at a time.

    Every call has the limits of a program of its own. A call that meets one of them, or ends the
    process, ends the session: its `Execution` says so by its status, later ones raise.

    Attributes:
        over: Whether the interpreter is gone.
    """

    def __init__(
        self,
        number: int,
        lane: str,
        dispatcher: Dispatcher,
        intake: Intake,
        most: int,
    ) -> None:
        self._number = number
        self._lane = lane
        self._dispatcher = dispatcher
        self._intake = intake
        self._first = True
        self._lock = threading.Lock()
        self.over = False
        dispatcher.open_session(number, most)

    def submit(
        self,
        code: str,
        *,
        echo: bool = False,
        stdin: str = "",
        files: Mapping[str, bytes | str] | None = None,
        collect: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Future[Execution]:
        """Ask for code to be run in the session.

        Args:
            code: Python source.
            echo: Whether to show the value of the last expression, as a notebook does.
            stdin: Standard input of this call.
            files: What is written to the working directory before, by relative path.
            collect: Relative paths of files whose content is wanted afterwards.
            timeout: Seconds of its own time; the sandbox's by default.

        Raises:
            SessionOver: The interpreter is gone.
            RuntimeError: Another call is at work.
            TypeError: As in `Sandbox.submit`.
            ValueError: As in `Sandbox.submit`.
        """
        if self.over:
            raise SessionOver("the session is over: its interpreter has ended")
        job = self._intake.job(
            code, stdin=stdin, files=files, collect=collect, timeout=timeout, flow=self
        )
        job.lane, job.session, job.first, job.echo = self._lane, self._number, self._first, echo
        if not self._lock.acquire(blocking=False):
            raise RuntimeError("a session runs one call at a time")
        job.future.add_done_callback(lambda future: self._ended(job))
        self._first = False
        try:
            self._dispatcher.submit(job)
        except BaseException:
            self._lock.release()
            raise
        return job.future

    def run(
        self,
        code: str,
        *,
        echo: bool = False,
        stdin: str = "",
        files: Mapping[str, bytes | str] | None = None,
        collect: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Execution:
        """Run code in the session and wait for it; arguments and errors as in `submit`."""
        future = self.submit(
            code, echo=echo, stdin=stdin, files=files, collect=collect, timeout=timeout
        )
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def arun(
        self,
        code: str,
        *,
        echo: bool = False,
        stdin: str = "",
        files: Mapping[str, bytes | str] | None = None,
        collect: Sequence[str] = (),
        timeout: float | None = None,
    ) -> Execution:
        """As `run`, for asyncio."""
        future = self.submit(
            code, echo=echo, stdin=stdin, files=files, collect=collect, timeout=timeout
        )
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """End the interpreter."""
        self.over = True
        self._dispatcher.end_session(self._number, self._lane)

    def _ended(self, job: Job) -> None:
        self.over = self.over or job.over or job.future.cancelled()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
