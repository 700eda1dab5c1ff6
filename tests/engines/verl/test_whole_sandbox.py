"""verl as a whole, on machines whose sandbox fails. `make test-verl` runs it."""

import importlib.util

import pytest

from tests.engines.verl import whole
from tests.engines.verl.writing_model import save_writing_model

pytestmark = [
    pytest.mark.verl,
    pytest.mark.skipif(
        importlib.util.find_spec("verl") is None, reason="verl has no release for this Python"
    ),
]

CHANGES: dict[str, dict[str, object]] = {
    "data": {"train_problems": 16, "held_out_problems": 8},
    "rollout": {
        "prompts_per_batch": 8,
        "responses_per_prompt": 4,
        "max_response_tokens": 96,
        "max_calls": 2,
    },
    "optimization": {"batches": 1, "updates_per_batch": 1, "micro_batch": 4},
    "evaluation": {"samples_per_problem": 1, "every": 0},
    "sandbox": {"preload": ["no_such_module"]},
}


def test_a_sandbox_that_cannot_run_anything_stops_the_run_before_its_first_update(tmp_path):
    """And says why, though each episode went on to its end and verl hides what fails in a tool."""
    save_writing_model(tmp_path / "model")
    recipe, path = tmp_path / "whole.toml", tmp_path / "run"
    recipe.write_text(whole.recipe(tmp_path / "model", ranks=1, changes=CHANGES))
    printed = whole.finished(
        [whole.CTPO, "train", recipe, "--output", path],
        tmp_path / "log.txt",
        whole.environment(),
        code=1,
    )
    assert "programs failed twice in the sandbox" in printed
    assert "No module named 'no_such_module'" in printed
    assert not list((path / "positions.parquet").glob("*.parquet"))
