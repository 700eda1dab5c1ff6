"""Running the programs of calls, and what the policy sees of their ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from ctpo.sandbox import Execution, Sandbox
from ctpo.tir.calls import Call


class Outcome(NamedTuple):
    """What came of one call.

    Attributes:
        status: The sandbox's verdict; `error` too for a call that could not be read.
        shown: What the policy is to be shown.
        failure: Why the sandbox failed; None unless it did so twice.
        own_seconds: The program's own time.
        queue_seconds: Its wait for a free worker before that.
    """

    status: str
    shown: str
    failure: str | None = None
    own_seconds: float = 0.0
    queue_seconds: float = 0.0


def run_programs(calls: Sequence[Call], sandbox: Sandbox) -> list[Outcome]:
    """Run the calls' programs concurrently.

    Args:
        calls: Calls; those with a problem are answered with it and not run.
        sandbox: A started sandbox.
    """
    outcomes = [Outcome("error", call.problem or "") for call in calls]
    runnable = [i for i, call in enumerate(calls) if call.problem is None]
    executions = dict(
        zip(runnable, sandbox.run_many([calls[i].code for i in runnable]), strict=True)
    )
    # What failed through no fault of the program gets a second chance, in a sandbox that healed.
    failed = [i for i, e in executions.items() if e.status == "sandbox-failure"]
    executions |= zip(failed, sandbox.run_many([calls[i].code for i in failed]), strict=True)
    for i, execution in executions.items():
        outcomes[i] = _outcome(execution)
    return outcomes


async def arun_program(call: Call, run: Callable[[str], Awaitable[Execution]]) -> Outcome:
    """As `run_programs`, for one call and asyncio.

    Args:
        call: A call.
        run: Runs a program, such as `Sandbox.arun`.
    """
    if call.problem is not None:
        return Outcome("error", call.problem)
    execution = await run(call.code)
    if execution.status == "sandbox-failure":
        execution = await run(call.code)
    return _outcome(execution)


def _outcome(execution: Execution) -> Outcome:
    return Outcome(
        execution.status,
        _shown(execution),
        execution.failure,
        execution.own_seconds,
        execution.queue_seconds,
    )


def _shown(execution: Execution) -> str:
    """Return what the policy sees: standard output, then how the program failed, if it did."""
    if execution.status == "success":
        return execution.stdout
    if execution.status == "error":
        last_line = execution.stderr.strip().rsplit("\n", 1)[-1]
        return execution.stdout + (last_line or f"exit code {execution.return_code}")
    return execution.stdout + f"[{execution.status}]"
