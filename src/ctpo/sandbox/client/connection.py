"""The caller's side of one fork server: its connection and the jobs it has."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from ctpo.sandbox import archive, wire
from ctpo.sandbox.client.job import Job, check_answer


@dataclass(eq=False)
class Connection:
    """A fork server and the socket to it, or the place of one that died.

    Attributes:
        lane: Which kind it is.
        number: Tells those of a sandbox apart.
        slots: Jobs it is made to hold at once.
        usable: Whether it is not known to be dead.
        link: The socket; `None` until it has been replaced.
        jobs: What it has, by number.
    """

    lane: str
    number: int
    slots: int
    usable: bool = True
    link: socket.socket | None = None
    jobs: dict[int, Job] = field(default_factory=dict)

    def send(self, job: Job, output_bytes: int) -> bool:
        """Give it a job; false if it turns out to be dead.

        Args:
            job: What to send.
            output_bytes: How much of each output is kept.

        Raises:
            OSError: This process has no memory or descriptors left for the job.
        """
        assert self.link is not None
        header, descriptors = job.message(output_bytes)
        job.sent = time.monotonic()
        sent_away = [d for d in descriptors if d not in job.outputs]
        try:
            wire.send(self.link, header, descriptors)
        except OSError:
            job.close()
            # Its reader will find out; until then it gets no more.
            with contextlib.suppress(OSError):
                self.link.shutdown(socket.SHUT_RDWR)
            self.usable = False
            return False
        finally:
            for descriptor in sent_away:
                os.close(descriptor)
        self.jobs[job.number] = job
        return True

    def receive(self, lock: threading.Lock) -> tuple[wire.Header, dict[str, bytes]]:
        """Its next answer, to one of `jobs`, and the files that came with it.

        Raises:
            OSError: The connection broke.
            EOFError: It is gone.
            ValueError: What came is no answer.
        """
        assert self.link is not None
        answer, descriptors = wire.receive(self.link)
        try:
            with lock:  # who sends a job notes it after that
                check_answer(answer, self.jobs)
            if not descriptors:
                return answer, {}
            (files,) = descriptors
            return answer, archive.unpack(os.pread(files, os.fstat(files).st_size, 0))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def hang_up(self) -> None:
        """Close the connection."""
        if self.link is not None:
            # Not just close: a fork of the caller may hold a duplicate.
            with contextlib.suppress(OSError):
                self.link.shutdown(socket.SHUT_RDWR)
            self.link.close()
            self.link = None


def roomiest(connections: Iterable[Connection], lane: str) -> Connection | None:
    """The fork server of a kind that has the fewest jobs, if one has room."""
    usable = [
        each
        for each in connections
        if each.lane == lane
        and each.link is not None
        and each.usable
        and len(each.jobs) < each.slots
    ]
    return min(usable, key=lambda each: len(each.jobs), default=None)
