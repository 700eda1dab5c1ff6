"""End whatever processes are left, however they detached themselves."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from ctpo.sandbox.server.clock import read

_LONGEST_SECONDS = 5.0


def end_everyone(proc: int) -> None:
    """Kill and reap every process but this one: all of its namespace, or all its children."""
    if os.getpid() == 1:
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait4(-1, 0)
    else:
        end_children(proc)


def end_children(proc: int) -> None:
    """Kill and reap every child; orphans become children of a subreaper, which this must be.

    Raises:
        TimeoutError: New ones kept coming.
    """
    deadline = time.monotonic() + _LONGEST_SECONDS
    while children := read(proc, "thread-self/children").split():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(children)} processes could not be ended")
        for child in map(int, children):
            os.kill(child, signal.SIGKILL)
            os.wait4(child, 0)
