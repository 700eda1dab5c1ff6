"""A fork server's places for programs, and what is known of the processes in them."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
from dataclasses import dataclass
from typing import NamedTuple

from ctpo.sandbox import wire
from ctpo.sandbox.execution import Status
from ctpo.sandbox.jail.kernel import Steps
from ctpo.sandbox.jail.scratch import Scratch
from ctpo.sandbox.server.clock import Clock, read


@dataclass
class Task:
    """A program on its way through: the caller's header and descriptors.

    Attributes:
        header: What the caller says of it.
        descriptors: What the caller gave: source, outputs and, if any, other inputs.
        names: Descriptor of the list of files to collect; -1 if none are wanted.
        ended: How the sandbox ended it, if it did.
    """

    header: wire.Header
    descriptors: list[int]
    names: int = -1
    ended: Status | None = None

    @classmethod
    def of(cls, header: wire.Header, descriptors: list[int]) -> Task:
        """A caller's."""
        names = descriptors.pop() if "collect" in header["given"] else -1
        return cls(header, descriptors, names)

    @classmethod
    def empty(cls, timeout: float) -> Task:
        """A program that does nothing, to see that one can run."""
        header = {
            "given": ["code", "stdout", "stderr"],
            "timeout": timeout,
            "memory_bytes": None,
            "seed": 0,
            "echo": False,
            "session": None,
        }
        return cls(header, [os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) for _ in range(3)])

    def empty_inputs(self) -> None:
        """Free the memory of the inputs, of which a session may have kept duplicates."""
        for name, descriptor in zip(self.header["given"], self.descriptors, strict=False):
            if name not in ("stdout", "stderr"):
                os.ftruncate(descriptor, 0)

    def close_given(self) -> None:
        """Let go of what the worker has got."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []

    def close(self) -> None:
        """Let go of all descriptors."""
        self.close_given()
        if self.names >= 0:
            os.close(self.names)
            self.names = -1


class Process:
    """A child of this process.

    Attributes:
        end: A descriptor that can be read once it has ended.
        proc_pid: Its id in the /proc that this process came with; 0 until known.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.end = os.pidfd_open(pid)
        self.proc_pid = 0

    def look_up(self, proc: int) -> None:
        """Learn `proc_pid`.

        Raises:
            OSError: The kernel does not tell.
        """
        for line in read(proc, f"self/fdinfo/{self.end}").splitlines():
            if line.startswith(b"Pid:"):
                self.proc_pid = int(line[4:])
        if self.proc_pid <= 0:
            raise OSError("/proc does not tell the pid of a child")

    def kill(self) -> None:
        """End it, if it has not ended."""
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.end, number)

    def cpu_limit(self, proc: int) -> float:
        """Seconds of processor time at which the kernel kills it; to be asked before it is reaped.

        It may have lowered that itself.
        """
        # Not prlimit, for which root in a container may lack the capability.
        for line in read(proc, f"{self.proc_pid}/limits").splitlines():
            if line.startswith(b"Max cpu time"):
                hard = line.split()[-2]
                return math.inf if hard == b"unlimited" else int(hard)
        return math.inf

    def has_ended(self) -> bool:
        """Whether it waits to be reaped.

        Raises:
            ChildProcessError: It has been reaped.
        """
        return os.waitid(os.P_PIDFD, self.end, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def was_killed(self) -> bool:
        """Whether it ended by SIGKILL; to be asked once it has ended, before it is reaped."""
        ended = os.waitid(os.P_PIDFD, self.end, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        return ended.si_code == os.CLD_KILLED and ended.si_status == signal.SIGKILL

    def peak_memory(self, proc: int) -> int:
        """Largest resident set, in bytes."""
        return self._status(proc, b"VmHWM:")

    def page_tables(self, proc: int) -> int:
        """Memory that the kernel needs to know where the process's memory is, in bytes."""
        return self._status(proc, b"VmPTE:")

    def _status(self, proc: int, name: bytes) -> int:
        for line in read(proc, f"{self.proc_pid}/status").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
        return 0


class Collecting(NamedTuple):
    """Files that are being copied, before a program's end is reported.

    Attributes:
        process: Copies them.
        archive: Descriptor of the file it writes.
        answer: The report.
    """

    process: Process
    archive: int
    answer: wire.Header


class Slot:
    """A place for at most one worker and one program.

    Attributes:
        worker: The jailed process, if there is one.
        link: To it.
        ready: Whether it waits for work.
        job: The program at work.
        program: Its process: a fork of the worker's, in a session the worker; `None` until known.
        clock: Of the program, once its process is known.
        session: The session whose process the worker is.
        collecting: The process that copies the files a program left, while it does, and its answer.
        cleaning: The process that deletes the scratch directory before the next worker comes.
        failure: What the worker said when it could not be jailed.
    """

    def __init__(self, number: int, scratch: Scratch) -> None:
        self.number = number
        self.scratch = scratch
        self.ruleset = -1
        self.steps: Steps | None = None
        self.worker: Process | None = None
        self.link: socket.socket | None = None
        self.ready = False
        self.job: Task | None = None
        self.program: Process | None = None
        self.clock: Clock | None = None
        self.session: int | None = None
        self.collecting: Collecting | None = None
        self.cleaning: Process | None = None
        self.failure: str | None = None

    @property
    def empty(self) -> bool:
        """Whether a worker can be put into it."""
        return self.worker is None and self.collecting is None and self.cleaning is None


class Event(NamedTuple):
    """What can be read of a slot: that a process of it ended, or a message of its worker."""

    slot: Slot
    source: Process | socket.socket
