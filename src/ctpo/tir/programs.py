"""Running programs and calling tools, and what the policy sees of their ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from ctpo.sandbox import Execution, Sandbox
from ctpo.tir.calls import TOOL_NAME, Call
from ctpo.tir.tools import ToolError, Tools

# Tools wait for others more than they compute.
_THREADS = 16


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


def run_programs(
    calls: Sequence[Call], sandbox: Sandbox, tools: Sequence[Tools] = ()
) -> list[Outcome]:
    """Run the calls' programs and call their tools, all concurrently.

    Args:
        calls: Calls; those with a problem are answered with it and not run.
        sandbox: A started sandbox.
        tools: For each call, the tools of its episode; none where there is Python only.
    """
    outcomes = [Outcome("error", call.problem or "") for call in calls]
    ready = [i for i, call in enumerate(calls) if call.problem is None]
    own = [i for i in ready if calls[i].tool != TOOL_NAME]
    with ThreadPoolExecutor(_THREADS) as threads:
        called = [(i, threads.submit(_call, calls[i], tools[i])) for i in own]
        runnable = [i for i in ready if calls[i].tool == TOOL_NAME]
        for i, execution in _run(calls, runnable, sandbox).items():
            outcomes[i] = _outcome(execution)
        for i, future in called:
            outcomes[i] = future.result()
    return outcomes


def _call(call: Call, tools: Tools) -> Outcome:
    try:
        return Outcome("success", tools.call(call.tool, call.arguments))
    except ToolError as error:
        return Outcome("error", str(error))
    except Exception as error:
        # Not the policy's doing: as where the sandbox fails, no grade of this answer is fair.
        failure = f"the tool {call.tool!r} raised {type(error).__name__}: {error}"
        return Outcome("sandbox-failure", "[the tool failed]", failure)


def _run(calls: Sequence[Call], runnable: Sequence[int], sandbox: Sandbox) -> dict[int, Execution]:
    executions = dict(
        zip(runnable, sandbox.run_many([calls[i].code for i in runnable]), strict=True)
    )
    # What failed through no fault of the program gets a second chance, in a sandbox that healed.
    failed = [i for i, e in executions.items() if e.status == "sandbox-failure"]
    executions |= zip(failed, sandbox.run_many([calls[i].code for i in failed]), strict=True)
    return executions


async def arun_program(call: Call, run: Callable[[str], Awaitable[Execution]]) -> Outcome:
    """As `run_programs`, for one program and asyncio.

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
