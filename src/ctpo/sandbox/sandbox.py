"""`Sandbox`: runs programs, at most so many at once, each in a fresh confined process."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Self, Unpack

from ctpo.sandbox import arguments
from ctpo.sandbox.client.dispatcher import Dispatcher
from ctpo.sandbox.client.fork_servers import SESSIONS, ForkServers
from ctpo.sandbox.client.requests import Requests
from ctpo.sandbox.execution import Execution
from ctpo.sandbox.program import Options, Program
from ctpo.sandbox.protections import SWITCHES, SYSTEM_CALLS, Protections, SandboxUnavailable
from ctpo.sandbox.session import Session, wait_for


class Sandbox:
    """Runs untrusted Python programs, each in a fresh confined process. Thread-safe.

    Args:
        workers: How many programs run at once, and one more of a flow that has none at work while
            others keep all busy; by default two for each processor, as far as the
            machine has memory for them.
        timeout: Seconds of a program's own time: wall time less its wait for a processor.
        memory_mb: Address space in MiB that a program may add to the interpreter's.
        output_bytes: How much of stdout, and of stderr, is kept; writing more ends the program.
        preload: Modules imported once, of which a program that names one gets its own copy at once.
        sessions: How many sessions may be open at once; by default 64, as far as the machine has
            memory for them beside the workers.
        most_waiting: How many programs may wait; who asks for more waits before asking.
        allow_weak: Whether to run with limits alone where the machine allows no more.
        without: Protections to switch off, for tests; names in `protections.SWITCHES`.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        timeout: float = 3.0,
        memory_mb: int = 512,
        output_bytes: int = 65536,
        preload: Sequence[str] = (),
        sessions: int | None = None,
        most_waiting: int = 100_000,
        allow_weak: bool = False,
        without: Iterable[str] = (),
    ) -> None:
        for name, value in (
            ("memory_mb", memory_mb),
            ("output_bytes", output_bytes),
            ("most_waiting", most_waiting),
        ):
            arguments.check_count(name, value)
        self._workers = arguments.workers(workers, memory_mb)
        self._timeout = arguments.seconds(timeout)
        modules = arguments.modules(preload)
        switched_off = arguments.switches(without, SWITCHES)
        self._requests = Requests(self._timeout, memory_mb, modules)
        self._sessions = arguments.sessions(sessions, self._workers, memory_mb)
        self._limits = {"memory_bytes": memory_mb << 20, "output_bytes": output_bytes}
        self._servers = ForkServers(modules, self._limits, switched_off, allow_weak=allow_weak)
        kept = 1 << 30 if "output-limit" in switched_off else output_bytes
        self._dispatcher = Dispatcher(self._workers, kept, most_waiting, self._servers.connect)
        self._session_lane = threading.Lock()
        self._session_numbers = itertools.count(1)
        self._has_session_lane = False
        self._owner = 0
        self._closed = False

    @property
    def restarts(self) -> int:
        """How often a server process was replaced after it died."""
        return self._servers.restarts

    @property
    def timeout(self) -> float:
        """Seconds of its own time that a program has if it is not said."""
        return self._timeout

    @property
    def memory_bytes(self) -> int:
        """Address space a program may add to the interpreter's."""
        return self._limits["memory_bytes"]

    @property
    def output_bytes(self) -> int:
        """How much of each output is kept."""
        return self._limits["output_bytes"]

    @property
    def workers(self) -> int:
        """How many programs run at once."""
        return self._workers

    @property
    def waiting(self) -> int:
        """How many programs wait for a worker."""
        return self._dispatcher.waiting

    @property
    def in_flight(self) -> int:
        """How many programs are at work."""
        return self._dispatcher.in_flight

    @property
    def outcomes(self) -> dict[str, int]:
        """How many programs ended with each status so far."""
        return dict(self._dispatcher.outcomes)

    @property
    def protections(self) -> Protections:
        """The protections in force.

        Raises:
            RuntimeError: The sandbox has not been started.
        """
        if self._servers.protections is None:
            raise RuntimeError("the sandbox has not been started: use it in a with statement")
        return self._servers.protections

    def start(self) -> None:
        """Start the servers and find the strongest confinement on which a program can run.

        Raises:
            SandboxUnavailable: A module to preload cannot be imported, or the machine allows
                neither namespaces nor landlock and `allow_weak` is false.
            RuntimeError: It has been started before.
        """
        if self._owner:
            raise RuntimeError("a sandbox can be started once only")
        self._owner = os.getpid()
        try:
            self._servers.climb(self._workers, self._dispatcher.add)
            self._dispatcher.start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End every program and process of the sandbox; returns when they are gone.

        Programs in flight end as `sandbox-failure`. In a fork of the owner this does nothing.
        """
        if self._owner != os.getpid() or self._closed:
            return
        self._closed = True
        self._dispatcher.close()
        self._servers.close()

    def __enter__(self) -> Self:
        if not self._owner:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        if not self._owner:
            await asyncio.to_thread(self.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    def submit(
        self, code: str | Program, *, flow: Hashable = None, **options: Unpack[Options]
    ) -> Future[Execution]:
        """Ask for a program to be run; its outcome comes as a future, which can be cancelled.

        Args:
            code: Python source, or a `Program`, which has options of its own.
            flow: On whose behalf. Flows take turns, whatever each has waiting.
            options: The other fields of a `Program`: stdin, files, collect, timeout, memory_mb,
                seed.

        Raises:
            RuntimeError: The sandbox is not started, closed, or was inherited through a fork.
            TypeError: As for `Program`.
            ValueError: As for `Program`, or `memory_mb` is more than the sandbox's.
        """
        self._check_usable()
        job = self._requests.job(Program.of(code, options), flow)
        self._dispatcher.submit(job)
        return job.future

    def run(self, code: str | Program, **options: Unpack[Options]) -> Execution:
        """Run one program; waits for a free worker and for its end.

        Arguments and errors are those of `submit`.
        """
        return wait_for(self.submit(code, **options))

    def run_many(
        self,
        codes: Sequence[str | Program],
        *,
        stdin: str | Sequence[str] = "",
        timeout: float | None = None,
        seed: int = 0,
    ) -> list[Execution]:
        """Run programs at once, as far as there are workers; outcomes in the order of `codes`.

        Args:
            codes: Python sources, or `Program`s, which the other arguments leave alone.
            stdin: Standard input of all of them, or of each.
            timeout: Seconds of each program's own time; the sandbox's by default.
            seed: For each program's random numbers.

        Raises:
            RuntimeError: As in `submit`.
            TypeError: As in `submit`.
            ValueError: As in `submit`, or `stdin` has another length than `codes`.
        """
        self._check_usable()
        futures: list[Future[Execution]] = []
        try:
            for job in self._requests.jobs(codes, stdin, timeout, seed):
                self._dispatcher.submit(job)
                futures.append(job.future)
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise

    async def arun(
        self, code: str | Program, *, flow: Hashable = None, **options: Unpack[Options]
    ) -> Execution:
        """As `submit`, for asyncio; cancelling the task ends the program."""
        await self._room()
        return await asyncio.wrap_future(self.submit(code, flow=flow, **options))

    async def arun_many(
        self,
        codes: Sequence[str | Program],
        *,
        stdin: str | Sequence[str] = "",
        timeout: float | None = None,
        seed: int = 0,
    ) -> list[Execution]:
        """As `run_many`, for asyncio."""
        self._check_usable()
        futures = []
        try:
            for job in self._requests.jobs(codes, stdin, timeout, seed):
                await self._room()
                self._dispatcher.submit(job)
                futures.append(asyncio.wrap_future(job.future))
            return list(await asyncio.gather(*futures))
        except BaseException:
            for future in futures:
                future.cancel()
            raise

    def session(self) -> Session:
        """An interpreter that keeps its state from call to call, to be used in a with statement.

        Raises:
            RuntimeError: The sandbox is not usable, or too many sessions are open.
            SandboxUnavailable: Programs could fork here, so that calls cannot be kept apart.
        """
        self._check_usable()
        if SYSTEM_CALLS not in self.protections.in_force:
            raise SandboxUnavailable("sessions need the allow-list of system calls")
        with self._session_lane:
            if not self._has_session_lane:
                self._dispatcher.add(self._servers.connection(SESSIONS, self._sessions))
                self._has_session_lane = True
        return Session(
            next(self._session_numbers), SESSIONS, self._dispatcher, self._requests, self._sessions
        )

    async def statistics(self) -> Mapping[str, object]:
        """Numbers for whoever watches: `workers`, `in_flight`, `waiting`, `restarts`, `outcomes` by
        status, sums of `queue_seconds`, `wall_seconds` and `cpu_seconds`, and `protections`.
        """  # noqa: D205
        return {
            "workers": self._workers,
            "in_flight": self.in_flight,
            "waiting": self.waiting,
            "restarts": self.restarts,
            "outcomes": self.outcomes,
            **self._dispatcher.seconds,
            "protections": list(self.protections.in_force),
        }

    async def _room(self) -> None:
        """Wait as long as too many programs wait."""
        while self._dispatcher.full and not self._closed:
            await asyncio.sleep(0.01)

    def _check_usable(self) -> None:
        if not self._owner:
            raise RuntimeError("the sandbox has not been started: use it in a with statement")
        if self._owner != os.getpid():
            raise RuntimeError(
                "the sandbox belongs to the process that started it, not to its fork"
            )
        if self._closed:
            raise RuntimeError("the sandbox is closed")


def probe() -> Protections:
    """What the sandbox can offer on this machine, found by running one program.

    Raises:
        SandboxUnavailable: No program can be run at all.
    """
    with Sandbox(workers=1, allow_weak=True) as sandbox:
        return sandbox.protections
