"""How long a program has run, not counting the time it waited for a processor."""

from __future__ import annotations

import contextlib
import os
import time
from typing import NamedTuple

from ctpo.sandbox.execution import cpu_budget_seconds, hard_wall_seconds

_TICK_SECONDS = 1.0 / os.sysconf("SC_CLK_TCK")
_SHORTEST_LOOK, _LONGEST_LOOK = 0.005, 0.25


class Clock:
    """The time of a program: wall time less its wait in the run queue.

    Sleeping, reading and computing count; waiting because the machine is busy does not. Two bounds
    keep programs from living on waits of their own making: one on the CPU time of all their
    threads, one on wall time.

    Args:
        proc: Descriptor of a /proc directory.
        pid: The program's process, as this process knows it.
        proc_pid: The same, as that directory numbers it.
        timeout: Seconds of the program's own time.
        descendants: Whether it may have children, whose CPU time counts too.
        started: When its process was made for it; `None` for one that has run before.
    """

    def __init__(
        self,
        proc: int,
        pid: int,
        proc_pid: int,
        timeout: float,
        *,
        descendants: bool,
        started: float | None = None,
    ) -> None:
        self._proc = proc
        self._pid = pid
        self._proc_pid = proc_pid
        self._timeout = timeout
        self._descendants = descendants
        self._waited_before = self._cpu_before = 0.0
        if started is None:
            self._waited_before = own_wait_seconds(proc, proc_pid)  # it has one thread yet
            self._cpu_before = cpu_seconds(pid)
        self._last_look = (0.0, 0.0)
        self.started = time.monotonic() if started is None else started

    def left_seconds(self) -> float:
        """How long to wait before asking again; 0 when the program's time is up."""
        wall = time.monotonic() - self.started
        # Wall time bounds the program's own from above: most runs end before more is asked.
        if wall < self._timeout:
            return max(self._timeout - wall, _SHORTEST_LOOK)
        if wall > hard_wall_seconds(self._timeout):
            return 0.0
        look = looked_at(self._proc, self._proc_pid)
        waited = max(0.0, look.waited - self._waited_before)
        # A wait is counted when it ends. What was certainly not waited: the time until now, if
        # nothing waits now, or until the last look, if something has run since.
        certain = 0.0
        if look.asleep:
            certain = wall - waited
        elif look.ran > self._last_look[1]:
            certain = self._last_look[0] - waited
        self._last_look = (wall, look.ran)
        if certain >= self._timeout or self._cpu() > cpu_budget_seconds(self._timeout):
            return 0.0
        left = self._timeout - (wall - waited)
        return min(max(left, _SHORTEST_LOOK), _LONGEST_LOOK)

    def measured(self) -> tuple[float, float, float]:
        """Wall, own and CPU seconds until now; to be asked before the process is reaped."""
        wall = time.monotonic() - self.started
        cpu = max(0.0, cpu_seconds(self._pid) - self._cpu_before)
        # Once it has ended, the first thread is all that can be asked.
        waited = own_wait_seconds(self._proc, self._proc_pid) - self._waited_before
        return wall, min(wall, max(0.0, wall - waited)), cpu

    def _cpu(self) -> float:
        if self._descendants:
            return descendants_cpu_seconds(self._proc)
        return cpu_seconds(self._pid) - self._cpu_before


def out_of_memory_kills(proc: int) -> int:
    """How many processes the kernel has killed for want of memory, on this machine."""
    _, _, rest = read(proc, "vmstat").partition(b"\noom_kill ")
    return int(rest.partition(b"\n")[0] or 0)


def cpu_seconds(pid: int) -> float:
    """CPU seconds of all threads of a process that is not yet reaped; 0 after that."""
    with contextlib.suppress(OSError):
        return time.clock_gettime((~pid << 3) | 2)  # the process's CPU clock, as libc names it
    return 0.0


def own_wait_seconds(proc: int, pid: int) -> float:
    """Seconds that the first thread of `pid` spent in a run queue; 0 once reaped."""
    fields = read(proc, f"{pid}/schedstat").split()
    return int(fields[1]) / 1e9 if fields else 0.0


class Look(NamedTuple):
    """What the kernel says of a process's threads.

    Attributes:
        waited: Seconds that the one that waited longest spent in a run queue.
        ran: Seconds that all of them ran.
        asleep: Whether none of them runs or waits to.
    """

    waited: float
    ran: float
    asleep: bool


def looked_at(proc: int, pid: int) -> Look:
    """A look at a process; one that has been reaped waits for nothing."""
    waited, ran, asleep = 0, 0, True
    for task in tasks(proc, pid):
        fields = read(proc, f"{pid}/task/{task}/schedstat").split()
        if fields:
            waited, ran = max(waited, int(fields[1])), ran + int(fields[0])
        # After the name, which may hold anything.
        state = read(proc, f"{pid}/task/{task}/stat").rpartition(b")")[2].split()[:1]
        asleep = asleep and state != [b"R"]
    return Look(waited / 1e9, ran / 1e9, asleep)


def descendants_cpu_seconds(proc: int) -> float:
    """CPU seconds of all that descends from this process, which must be single-threaded."""
    ticks = 0
    unseen = read(proc, "thread-self/children").split()
    while unseen:
        pid = int(unseen.pop())
        # After the name, which may hold anything: utime, stime and those of children waited for.
        fields = read(proc, f"{pid}/stat").rpartition(b")")[2].split()
        ticks += sum(map(int, fields[11:15]))
        for task in tasks(proc, pid):
            unseen += read(proc, f"{pid}/task/{task}/children").split()
    return ticks * _TICK_SECONDS


def tasks(proc: int, pid: int) -> list[str]:
    """The threads of a process; none once it has ended."""
    try:
        directory = os.open(f"{pid}/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
    except (FileNotFoundError, ProcessLookupError):
        return []
    try:
        return os.listdir(directory)
    except (FileNotFoundError, ProcessLookupError):
        return []
    finally:
        os.close(directory)


def read(proc: int, path: str) -> bytes:
    """A small file under /proc; empty once the process it is about has ended."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    except (FileNotFoundError, ProcessLookupError):
        return b""
    try:
        return os.read(descriptor, 65536)
    except ProcessLookupError:
        return b""
    finally:
        os.close(descriptor)
