"""How long a program has run, not counting the time it waited for a processor."""

from __future__ import annotations

import os
import time

from ctpo.sandbox.execution import cpu_budget_seconds, hard_wall_seconds

_TICK_SECONDS = 1.0 / os.sysconf("SC_CLK_TCK")
_SHORTEST_LOOK, _LONGEST_LOOK = 0.005, 0.25
# How far apart two looks may be for the second to say that a program's time is up.
_CLOSE_LOOKS = 0.02


class Clock:
    """The time of a program: wall time less its first process's wait in the run queue.

    Sleeping, reading and computing count; waiting because the machine is busy does not. Two bounds
    keep programs from living on waits of their own making: one on the CPU time of all their
    processes, one on wall time.

    Args:
        proc: Descriptor of a /proc directory.
        pid: The program's first process, as that directory numbers it.
        started: `time.monotonic()` at the fork.
        timeout: Seconds of the program's own time.
    """

    def __init__(self, proc: int, pid: int, started: float, timeout: float) -> None:
        self._proc = proc
        self._pid = pid
        self._started = started
        self._timeout = timeout
        self._looked = -_CLOSE_LOOKS
        self._ran = 0.0

    def left_seconds(self) -> float:
        """How long to wait before asking again; 0 when the program's time is up."""
        wall = time.monotonic() - self._started
        # Wall time bounds the program's own from above: most runs end before more is asked.
        if wall < self._timeout:
            return max(self._timeout - wall, _SHORTEST_LOOK)
        left = self._timeout - (wall - waited_seconds(self._proc, self._pid))
        if wall > hard_wall_seconds(self._timeout):
            return 0.0
        if left <= 0 and not self._may_be_waiting(wall):
            return 0.0
        if descendants_cpu_seconds(self._proc) > cpu_budget_seconds(self._timeout):
            return 0.0
        return min(max(left, _SHORTEST_LOOK), _LONGEST_LOOK)

    def _may_be_waiting(self, wall: float) -> bool:
        """Whether a wait may be under way, which the kernel counts only once it is over.

        A program that can run and has not since the look just before is waiting right now. After
        two looks close to each other between which it ran, next to nothing is missing.
        """
        close = wall - self._looked <= _CLOSE_LOOKS
        ran, can_run = ran_seconds(self._proc, self._pid), runnable(self._proc, self._pid)
        progressed = ran > self._ran
        self._looked, self._ran = wall, ran
        return can_run and not (close and progressed)


def ran_seconds(proc: int, pid: int) -> float:
    """Seconds that the threads of `pid` spent on processors; 0 once ended."""
    ran = 0
    for task in tasks(proc, pid):
        fields = read(proc, f"{pid}/task/{task}/schedstat").split()
        if fields:
            ran += int(fields[0])
    return ran / 1e9


def runnable(proc: int, pid: int) -> bool:
    """Whether a thread of `pid` runs or waits for a processor."""
    for task in tasks(proc, pid):
        # After the name, which may hold anything: the state.
        state = read(proc, f"{pid}/task/{task}/stat").rpartition(b")")[2].split()[:1]
        if state == [b"R"]:
            return True
    return False


def waited_seconds(proc: int, pid: int) -> float:
    """Seconds that the thread of `pid` that waited longest spent in a run queue; 0 once ended."""
    longest = 0
    for task in tasks(proc, pid):
        fields = read(proc, f"{pid}/task/{task}/schedstat").split()
        if fields:
            longest = max(longest, int(fields[1]))
    return longest / 1e9


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
