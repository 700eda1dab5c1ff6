"""What the way a program's process ended says of the program."""

from __future__ import annotations

import signal

from ctpo.sandbox.execution import Status, cpu_budget_seconds
from ctpo.sandbox.server.program import OUT_OF_MEMORY

_CRASHES = (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGKILL)


def verdict(
    code: int, *, peak: int, most_memory: int, cpu: float, timeout: float, confined: bool
) -> Status:
    """The status of a program that the sandbox did not end itself.

    Args:
        code: Its exit code, or minus the number of the signal that ended it.
        peak: Largest resident set, in bytes.
        most_memory: What it may use, in bytes.
        cpu: Seconds of processor time that it used.
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
        # It was not its own doing: the limit on CPU time did it, or somebody outside.
        return "timeout" if cpu > cpu_budget_seconds(timeout) else "sandbox-failure"
    return "success" if code == 0 else "error"
