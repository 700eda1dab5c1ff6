"""Hands jobs to fork servers, takes their answers, and replaces those that died.

One thread reads answers; whoever submits a job sends it, if there is room, so that a program costs
no more changes of thread than it must.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import InvalidStateError

from ctpo.sandbox import wire
from ctpo.sandbox.client.connection import Connection, roomiest
from ctpo.sandbox.client.fair_queue import FairQueue, Path, path_of
from ctpo.sandbox.client.job import Job
from ctpo.sandbox.client.launcher import LauncherGone
from ctpo.sandbox.execution import Execution
from ctpo.sandbox.protections import SandboxUnavailable

CLOSED = "the sandbox was closed"
_PAUSES = (0.0, 0.05, 0.25, 1.0)
_LONGEST_LOOK = 5.0
# Places beyond the workers for who has nothing at work while others' programs take long.
_GUESTS = 1


class Dispatcher:
    """The traffic between callers and fork servers.

    Args:
        workers: Most jobs at work at once.
        output_bytes: How much of each output is kept.
        most_waiting: Most jobs that wait; submitting more blocks.
        connect: Starts the fork server of a connection; the socket to it.
    """

    def __init__(
        self,
        workers: int,
        output_bytes: int,
        most_waiting: int,
        connect: Callable[[Connection], socket.socket],
    ) -> None:
        self._workers = workers
        self._output_bytes = output_bytes
        self._most_waiting = most_waiting
        self._connect = connect
        self._connections: list[Connection] = []
        self._queue: FairQueue[Job] = FairQueue()
        self._urgent: deque[Job] = deque()  # was sent to a server that was dead already
        self._in_flight = 0
        self._at_work: Counter[Path] = Counter()  # jobs that fork servers have, by flow
        self._sessions: set[int] = set()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._closed = False
        self._poll = select.poll()
        self._by_descriptor: dict[int, Connection] = {}
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._wake, select.POLLIN)
        self._thread = threading.Thread(target=self._serve, name="ctpo-sandbox", daemon=True)
        self.outcomes: dict[str, int] = {}
        self.seconds = {"queue_seconds": 0.0, "wall_seconds": 0.0, "cpu_seconds": 0.0}

    @property
    def waiting(self) -> int:
        """Jobs that no fork server has yet."""
        return len(self._queue) + len(self._urgent)

    @property
    def in_flight(self) -> int:
        """Jobs that fork servers have."""
        return self._in_flight

    @property
    def full(self) -> bool:
        """Whether submitting would block."""
        return self.waiting >= self._most_waiting

    def start(self) -> None:
        """Begin to read answers."""
        self._thread.start()

    def add(self, connection: Connection) -> None:
        """Take a fork server in; it is started when it is not yet."""
        if connection.link is None:
            connection.link = self._connect(connection)
        with self._lock:
            self._connections.append(connection)
            self._register(connection)

    def submit(self, job: Job) -> None:
        """Give a job in; its future takes the outcome. Blocks while too many wait."""
        with self._lock:
            while not self._closed and self.waiting >= self._most_waiting:
                self._room.wait()
            if self._closed:
                raise RuntimeError("the sandbox is closed")
            job.number = next(self._numbers)
            self._queue.put(path_of(job.flow), job)
            failed = self._hand_out()
        self._settle(failed)
        job.future.add_done_callback(
            lambda future: self._cancel(job) if future.cancelled() else None
        )

    def open_session(self, session: int, most: int) -> None:
        """Count a session that is open.

        Raises:
            RuntimeError: There are too many.
        """
        with self._lock:
            if len(self._sessions) >= most:
                raise RuntimeError(f"{most} sessions are open, as many as the sandbox was made for")
            self._sessions.add(session)

    def end_session(self, session: int, lane: str) -> None:
        """Have a session's process ended."""
        with self._lock:
            if session not in self._sessions or self._closed:
                return
            self._sessions.discard(session)
            for connection in self._connections:
                if connection.lane == lane and connection.link is not None:
                    with contextlib.suppress(OSError):
                        wire.send(connection.link, {"end": session})

    def close(self) -> None:
        """Fail what waits or is at work, and hang up."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            jobs = self._take_all()
        os.eventfd_write(self._wake, 1)
        self._settle([(job, job.failed(CLOSED)) for job in jobs])
        if self._thread.is_alive():
            self._thread.join()
        for connection in self._connections:
            self._settle([(job, job.failed(CLOSED)) for job in connection.jobs.values()])
            connection.hang_up()
        os.close(self._wake)

    def _register(self, connection: Connection) -> None:
        assert connection.link is not None
        self._by_descriptor[connection.link.fileno()] = connection
        self._poll.register(connection.link, select.POLLIN)
        os.eventfd_write(self._wake, 1)

    def _hand_out(self) -> list[tuple[Job, Execution]]:
        """Send what there is room for; the outcomes of what cannot be. With the lock held."""
        failed: list[tuple[Job, Execution]] = []
        while (job := self._next()) is not None:
            if job.future.cancelled():
                continue
            connection = roomiest(self._connections, job.lane)
            if connection is None:
                self._urgent.appendleft(job)  # until one has been replaced
                break
            try:
                sent = connection.send(job, self._output_bytes)
            except OSError as error:
                failed.append((job, job.failed(f"it could not be sent: {error}")))
                continue
            if sent:
                self._in_flight += 1
                self._at_work[path_of(job.flow)] += 1
            else:
                self._urgent.appendleft(job)
        self._room.notify_all()
        return failed

    def _next(self) -> Job | None:
        """The job whose turn it is, if there is room for one. With the lock held."""
        if self._in_flight < self._workers:
            return self._urgent.popleft() if self._urgent else self._queue.get()
        if self._in_flight < self._workers + _GUESTS:
            return self._queue.get(lambda path: not self._at_work[path])
        return None

    def _ended(self, job: Job) -> None:
        """Count a job that no fork server has any more. With the lock held."""
        self._in_flight -= 1
        path = path_of(job.flow)
        self._at_work[path] -= 1
        if not self._at_work[path]:
            del self._at_work[path]

    def _cancel(self, job: Job) -> None:
        with self._lock:
            if self._queue.remove(path_of(job.flow), job):
                self._room.notify_all()
                return
            for connection in self._connections:
                if job.number in connection.jobs and connection.link is not None:
                    with contextlib.suppress(OSError):
                        wire.send(connection.link, {"cancel": job.number})

    def _serve(self) -> None:
        try:
            self._read_answers()
        except BaseException as error:
            # An error of ours must not leave callers waiting for ever.
            with self._lock:
                self._closed = True
                jobs = self._take_all()
                for connection in self._connections:
                    jobs += connection.jobs.values()
                    connection.jobs = {}
            self._settle([(j, j.failed(f"{type(error).__name__}: {error}")) for j in jobs])
            raise

    def _take_all(self) -> list[Job]:
        """Everything that waits. With the lock held."""
        jobs = [*self._urgent]
        self._urgent.clear()
        while (job := self._queue.get()) is not None:
            jobs.append(job)
        self._room.notify_all()
        return jobs

    def _read_answers(self) -> None:
        while True:
            for descriptor, _ in self._poll.poll(_LONGEST_LOOK * 1000):
                if descriptor == self._wake:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(self._wake)
                elif descriptor in self._by_descriptor:
                    self._take_answer(self._by_descriptor[descriptor])
            if self._closed:
                return
            self._drop_those_stuck()
            dead = [connection for connection in self._connections if connection.link is None]
            if dead:
                self._replace(dead)

    def _take_answer(self, connection: Connection) -> None:
        try:
            answer, files = connection.receive(self._lock)
        except (OSError, EOFError, ValueError) as error:
            self._lose(connection, f"{type(error).__name__}: {error}")
            return
        with self._lock:
            job = connection.jobs.pop(answer["id"])
            self._ended(job)
            failed = [] if self._closed else self._hand_out()
        if answer["status"] == "sandbox-failure" or "return_code" not in answer:
            outcome = job.failed(answer.get("failure") or "the session is over")
            job.over = bool(answer.get("over"))
        else:
            outcome = job.finish(answer, files, self._output_bytes)
        self._settle([(job, outcome), *failed])

    def _drop_those_stuck(self) -> None:
        now = time.monotonic()
        with self._lock:
            stuck = [p for p in self._connections if any(j.deadline < now for j in p.jobs.values())]
        for connection in stuck:
            self._lose(connection, "TimeoutError: a fork server does not answer")

    def _lose(self, connection: Connection, why: str) -> None:
        with self._lock:
            assert connection.link is not None
            self._poll.unregister(connection.link)
            del self._by_descriptor[connection.link.fileno()]
            connection.hang_up()
            jobs, connection.jobs = list(connection.jobs.values()), {}
            for job in jobs:
                self._ended(job)
        if self._closed:
            why = CLOSED
        for job in jobs:
            job.over = True
        self._settle([(job, job.failed(why)) for job in jobs])

    def _replace(self, dead: list[Connection]) -> None:
        """Put new fork servers in the place of dead ones; fail their work if that cannot be."""
        for connection in dead:
            failure: Exception | None = None
            for pause in _PAUSES:
                time.sleep(pause)
                if self._closed:
                    return
                try:
                    connection.link = self._connect(connection)
                    break
                except (OSError, LauncherGone, SandboxUnavailable) as error:
                    failure = error
            with self._lock:
                if connection.link is not None:
                    self._register(connection)
                    outcomes = self._hand_out()
                else:
                    why = f"{type(failure).__name__}: {failure}"
                    outcomes = [(job, job.failed(why)) for job in self._take_all()]
            self._settle(outcomes)

    def _settle(self, outcomes: list[tuple[Job, Execution]]) -> None:
        for job, outcome in outcomes:
            self.outcomes[outcome.status] = self.outcomes.get(outcome.status, 0) + 1
            for name in self.seconds:
                self.seconds[name] += getattr(outcome, name)
            with contextlib.suppress(InvalidStateError):  # it was cancelled
                job.future.set_result(outcome)
