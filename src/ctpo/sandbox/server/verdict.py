"""What the way a program's process ended says of the program."""

from __future__ import annotations

import signal

from ctpo.sandbox import wire
from ctpo.sandbox.execution import Status, cpu_budget_seconds
from ctpo.sandbox.server.program import OUT_OF_MEMORY
from ctpo.sandbox.server.slot import Task

_CRASHES = (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGKILL)


def verdict(
    code: int,
    *,
    peak: int,
    most_memory: int,
    cpu: float,
    cpu_limit: float,
    timeout: float,
    confined: bool,
) -> Status:
    """The status of a program that the sandbox did not end itself.

    Args:
        code: Its exit code, or minus the number of the signal that ended it.
        peak: Largest resident set, in bytes.
        most_memory: What it may use, in bytes.
        cpu: Seconds of processor time that it used.
        cpu_limit: Seconds at which the kernel would have killed it.
        timeout: Seconds of its own time that it had.
        confined: Whether the filter of system calls keeps it from signalling itself SIGKILL.
    """
    if code == -OUT_OF_MEMORY:
        return "memory"
    if code == -signal.SIGXCPU:
        return "timeout"
    if code in _CRASHES and peak > 0.9 * most_memory:
        # Native code takes a refused allocation badly, and the kernel kills when it has none.
        return "memory"
    if code == -signal.SIGKILL and confined:
        # The limit on CPU time did it, which a program can lower, or somebody outside.
        budget = cpu_budget_seconds(timeout)
        return "timeout" if cpu > budget or cpu_limit < budget else "sandbox-failure"
    return "success" if code == 0 else "error"


def report(
    job: Task,
    status: Status,
    code: int,
    peak: int,
    measured: tuple[float, float, float],
    *,
    over: bool,
) -> wire.Header:
    """What the caller is told of a program's end.

    Args:
        job: Which program.
        status: How it ended.
        code: Its exit code, or minus the number of a signal.
        peak: Largest resident set, in bytes.
        measured: Its wall, own and CPU seconds.
        over: Whether its process is gone.
    """
    wall, own, cpu = measured
    failure = "cancelled" if job.ended else "its process was killed from outside"
    return {
        "status": status,
        "return_code": code if status in ("success", "error") else None,
        "wall_seconds": wall,
        "own_seconds": own,
        "cpu_seconds": cpu,
        "peak_memory_bytes": peak,
        "failure": failure if status == "sandbox-failure" else None,
        "over": over,
    }
