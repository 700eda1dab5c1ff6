import asyncio

import pytest

from ctpo.sandbox import Execution
from ctpo.tir.calls import Call
from ctpo.tir.programs import Outcome, arun_program, run_programs

CODES = ["print(6 * 7)", "1 / 0", "raise SystemExit(3)", "print(1, end='')"]


def call(code, problem=None):
    return Call(code, problem, len(code), 0)


def test_one_at_a_time_is_what_they_are_together(sandbox):
    calls = [*map(call, CODES), call("", "the call is not JSON")]
    together = run_programs(calls, sandbox)
    single = [asyncio.run(arun_program(c, sandbox.arun)) for c in calls]
    assert [o[:3] for o in single] == [o[:3] for o in together]
    assert [o.shown for o in together] == [
        "42\n",
        "ZeroDivisionError: division by zero",
        "exit code 3",
        "1",
        "the call is not JSON",
    ]
    assert all(o.own_seconds > 0 for o in (*single[:4], *together[:4]))
    assert together[4] == Outcome("error", "the call is not JSON")


@pytest.mark.parametrize(("failures", "status"), [(1, "success"), (2, "sandbox-failure")])
def test_what_the_sandbox_lost_is_run_again_once(sandbox, failures, status):
    asked = []

    async def run(code):
        asked.append(code)
        execution = await sandbox.arun(code)
        if len(asked) <= failures:
            return Execution.failed("gone", wall_seconds=0.0, queue_seconds=0.0)
        return execution

    outcome = asyncio.run(arun_program(call("print(1)"), run))
    assert (outcome.status, len(asked)) == (status, 2)
    assert outcome.failure == (None if status == "success" else "gone")
