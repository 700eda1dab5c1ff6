"""End a program with every process it started, however that detached itself."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from resource import struct_rusage

from ctpo.sandbox.clock import read
from ctpo.sandbox.plan import Plan

_LONGEST_SECONDS = 5.0


def end_program(pid: int, plan: Plan, proc: int) -> tuple[int, list[struct_rusage]]:
    """Kill a program and all it left; its wait status, and the usage of each process reaped.

    Args:
        pid: The program's first process, a child of this one.
        plan: Tells which of the means there are.
        proc: Descriptor of a /proc directory.
    """
    if plan.namespaces:
        if os.getpid() != 1:
            raise RuntimeError("only the first process of a namespace may kill everyone")
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
    else:
        os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    usages = [usage]
    if plan.namespaces:
        with contextlib.suppress(ChildProcessError):
            while True:
                usages.append(os.wait4(-1, 0)[2])
    else:
        usages += end_children(proc)
    return status, usages


def end_children(proc: int) -> list[struct_rusage]:
    """Kill and reap every child; orphans become children of a subreaper, which this must be.

    Raises:
        TimeoutError: New ones kept coming.
    """
    usages = []
    deadline = time.monotonic() + _LONGEST_SECONDS
    while children := read(proc, "thread-self/children").split():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(children)} processes could not be ended")
        for child in map(int, children):
            os.kill(child, signal.SIGKILL)
            usages.append(os.wait4(child, 0)[2])
    return usages
