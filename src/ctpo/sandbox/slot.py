"""A fork server's places for children, and what is known of a child."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from ctpo.sandbox import wire
from ctpo.sandbox.clock import Clock, read
from ctpo.sandbox.execution import Status
from ctpo.sandbox.kernel import Steps
from ctpo.sandbox.scratch import Scratch


@dataclass
class WardenJob:
    """A program on its way through: the caller's header and descriptors."""

    header: wire.Header
    descriptors: list[int]
    ended: Status | None = None

    def close(self) -> None:
        """Let go of the descriptors."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors = []


class Slot:
    """A place with at most one child.

    Attributes:
        pid: The child's; 0 when there is none.
        ready: Whether it has shut its jail and has no work.
    """

    def __init__(self, number: int, scratch: Scratch) -> None:
        self.number = number
        self.scratch = scratch
        self.pid = 0
        self.process = self.proc_pid = self.ruleset = -1
        self.steps: Steps | None = None
        self.link: socket.socket | None = None
        self.ready = False
        self.job: WardenJob | None = None
        self.clock: Clock | None = None
        self.session: int | None = None
        self.failure: str | None = None


def has_ended(process: int) -> bool:
    """Whether a child has ended and waits to be reaped."""
    return os.waitid(os.P_PIDFD, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def peak_memory(proc: int, pid: int) -> int:
    """Largest resident set of a process, in bytes."""
    for line in read(proc, f"{pid}/status").splitlines():
        if line.startswith(b"VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
