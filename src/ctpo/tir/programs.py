"""Running the programs of calls, and what the policy sees of their ends."""

from __future__ import annotations

from collections.abc import Sequence

from ctpo.sandbox import Execution, Sandbox
from ctpo.tir.calls import Call


def run_programs(calls: Sequence[Call], sandbox: Sandbox) -> list[tuple[str, str, str | None]]:
    """Run the calls' programs concurrently.

    Args:
        calls: Calls; those with a problem are answered with it and not run.
        sandbox: A started sandbox.

    Returns:
        For each call its status, what the policy is to be shown, and why the sandbox failed, which
        is None unless it did so twice.
    """
    shown: list[tuple[str, str, str | None]] = [
        ("error", call.problem or "", None) for call in calls
    ]
    runnable = [i for i, call in enumerate(calls) if call.problem is None]
    executions = dict(
        zip(runnable, sandbox.run_many([calls[i].code for i in runnable]), strict=True)
    )
    # What failed through no fault of the program gets a second chance, in a sandbox that healed.
    failed = [i for i, e in executions.items() if e.status == "sandbox-failure"]
    executions |= zip(failed, sandbox.run_many([calls[i].code for i in failed]), strict=True)
    for i, execution in executions.items():
        shown[i] = (execution.status, _shown(execution), execution.failure)
    return shown


def _shown(execution: Execution) -> str:
    """Return what the policy sees: standard output, then how the program failed, if it did."""
    if execution.status == "success":
        return execution.stdout
    if execution.status == "error":
        last_line = execution.stderr.strip().rsplit("\n", 1)[-1]
        return execution.stdout + (last_line or f"exit code {execution.return_code}")
    return execution.stdout + f"[{execution.status}]"
