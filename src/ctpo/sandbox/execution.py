"""What came of one program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Status = Literal["success", "error", "timeout", "memory", "output-limit", "sandbox-failure"]


@dataclass(frozen=True)
class Execution:
    """The outcome of one program.

    Attributes:
        status: `success` (exit code 0), `error` (any other end of the program's own making),
            `timeout`, `memory`, `output-limit`, or `sandbox-failure`, which is never the program's
            fault and says nothing about it.
        stdout: Standard output as UTF-8; bytes that are not UTF-8 became U+FFFD. What was written
            before a time-out or a limit is kept.
        stderr: Standard error, treated alike.
        return_code: Exit code, or minus the signal's number; `None` when the sandbox ended the
            program or failed.
        wall_seconds: From handing the program to its process to its end.
        own_seconds: Of these, those it did not wait for a processor; time-outs count them.
        cpu_seconds: User and system time of the program.
        queue_seconds: Time spent waiting for a free worker before that.
        peak_memory_bytes: Largest resident set of the program. It includes the interpreter and
            the preloaded modules, whose pages are shared.
        stdout_truncated: Whether the program wrote more than is kept.
        stderr_truncated: Whether the program wrote more than is kept.
        failure: Why the sandbox failed; `None` unless `status` is `sandbox-failure`.
        files: Contents of the files that were asked for, those that the program left as regular
            files within the limit on their size.
    """

    status: Status
    stdout: str
    stderr: str
    return_code: int | None
    wall_seconds: float
    own_seconds: float
    cpu_seconds: float
    queue_seconds: float
    peak_memory_bytes: int
    stdout_truncated: bool
    stderr_truncated: bool
    failure: str | None
    files: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def failed(cls, failure: str, *, wall_seconds: float, queue_seconds: float) -> Execution:
        """A `sandbox-failure`, with nothing known about the program."""
        return cls(
            status="sandbox-failure",
            stdout="",
            stderr="",
            return_code=None,
            wall_seconds=wall_seconds,
            own_seconds=0.0,
            cpu_seconds=0.0,
            queue_seconds=queue_seconds,
            peak_memory_bytes=0,
            stdout_truncated=False,
            stderr_truncated=False,
            failure=failure,
        )


def hard_wall_seconds(timeout: float) -> float:
    """The wall time at which a program ends whatever it did with it.

    Far above the time-out, so that an overloaded machine slows answers and never fails them.

    Args:
        timeout: The program's own time, in seconds.
    """
    return 20.0 * timeout + 10.0


def cpu_budget_seconds(timeout: float) -> float:
    """The CPU time that all threads of a program may use together.

    Room for threads, but not for a crowd that hides behind the waits it causes itself.

    Args:
        timeout: The program's own time, in seconds.
    """
    return 2.0 * timeout + 1.0
