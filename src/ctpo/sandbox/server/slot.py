"""A fork server's places for programs, and what is known of the processes in them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from dataclasses import dataclass

from ctpo.sandbox import wire
from ctpo.sandbox.execution import Status
from ctpo.sandbox.jail.kernel import Steps
from ctpo.sandbox.jail.scratch import Scratch
from ctpo.sandbox.server.clock import Clock, read


@dataclass
class Task:
    """A program on its way through: the caller's header and descriptors."""

    header: wire.Header
    descriptors: list[int]
    ended: Status | None = None

    @classmethod
    def empty(cls, timeout: float) -> Task:
        """A program that does nothing, to see that one can run.

        Args:
            timeout: Seconds of its own time.
        """
        header = {
            "given": ["code", "stdout", "stderr"],
            "timeout": timeout,
            "memory_bytes": None,
            "seed": 0,
            "echo": False,
            "session": None,
        }
        return cls(header, [os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC) for _ in range(3)])

    def close(self) -> None:
        """Let go of the descriptors."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []


class Process:
    """A child of this process.

    Args:
        pid: Its id.

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

        Args:
            proc: Descriptor of that directory.

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
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.end, signal.SIGKILL)

    def has_ended(self) -> bool:
        """Whether it waits to be reaped.

        Raises:
            ChildProcessError: It has been reaped.
        """
        return os.waitid(os.P_PIDFD, self.end, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def peak_memory(self, proc: int) -> int:
        """Largest resident set, in bytes."""
        for line in read(proc, f"{self.proc_pid}/status").splitlines():
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
        return 0


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
        self.failure: str | None = None
