import dataclasses

import pytest

from ctpo.tir import ToolResult, Trajectory, Turn
from ctpo.tir.storage import read_trajectories, write_trajectories


@pytest.fixture
def trajectory():
    return Trajectory(
        prompt_ids=[1, 2],
        response_ids=[3, 4, 5, 6],
        mask=[True, True, False, True],
        sampler_logprobs=[-0.5, -1.0, 0.0, -0.25],
        turns=[
            Turn("assistant", 0, 2, "```python\nprint(7)\n```"),
            Turn("tool", 2, 3, "\n```output\n\\boxed{7}\n```\n"),
            Turn("assistant", 3, 4, "\\boxed{8}"),
        ],
        tool_results=[ToolResult("print(7)", "success", "\\boxed{7}")],
        finish_reason="answered",
    )


def test_the_tools_words_are_not_the_policys(trajectory):
    assert "\\boxed{7}" in trajectory.text
    assert "\\boxed{7}" not in trajectory.assistant_text
    assert trajectory.assistant_text.endswith("\\boxed{8}")


@pytest.mark.parametrize("name", ["mask", "sampler_logprobs", "old_logprobs"])
def test_every_token_needs_its_entry(trajectory, name):
    with pytest.raises(ValueError, match=f"{name} has 1 entries; response_ids has 4"):
        dataclasses.replace(trajectory, **{name: [0]})


def test_only_a_sandbox_failure_makes_a_grade_unfair(trajectory):
    assert not trajectory.sandbox_failed
    for status in ("error", "timeout", "memory", "output-limit"):
        result = ToolResult("", status, "")
        assert not dataclasses.replace(trajectory, tool_results=[result]).sandbox_failed
    failed = ToolResult("", "sandbox-failure", "")
    assert dataclasses.replace(trajectory, tool_results=[failed]).sandbox_failed


def test_what_is_read_back_is_what_was_written(trajectory, tmp_path):
    graded = dataclasses.replace(
        trajectory,
        problem_id="p1",
        source="gcd",
        reward=1.0,
        advantage=0.5,
        old_logprobs=[-0.5, -1.0, 0.0, -0.25],
    )
    write_trajectories(tmp_path / "batch-0001.parquet", [trajectory], batch=1)
    write_trajectories(tmp_path / "batch-0002.parquet", [graded, graded], batch=2)
    assert read_trajectories(tmp_path / "batch-0001.parquet") == [trajectory]
    assert read_trajectories(tmp_path) == [trajectory, graded, graded]
