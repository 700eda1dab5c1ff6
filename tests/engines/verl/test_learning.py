"""verl teaches the demo's model something: `make learn-verl`, six minutes on two cores."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from ctpo.evaluation import evaluate
from ctpo.sandbox import Sandbox
from ctpo.tasks import generate
from ctpo.tir.transformers_generator import TransformersGenerator
from ctpo.training.policy import episode_policy, episode_settings
from ctpo.training.recipe.loading import load_recipe
from tests.engines.verl import whole

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        importlib.util.find_spec("verl") is None, reason="verl has no release for this Python"
    ),
]

RECIPE = f"""
parent = "tiny-verl"
name = "tiny-verl-cpu"

[optimization]
batches = 30
checkpoint_every = 30

[evaluation]
every = 0

[verl]
rollout_engine = "transformers"
workers = 1
overrides = {json.dumps(whole.overrides(1))}
"""


def test_the_demo_on_verl_gets_better(tmp_path: Path, sandbox: Sandbox) -> None:
    """By 0.2 and more on problems that it was not trained on."""
    recipe, run = tmp_path / "tiny-verl-cpu.toml", tmp_path / "run"
    recipe.write_text(RECIPE)
    whole.finished(
        [whole.CTPO, "train", recipe, "--output", run], tmp_path / "log.txt", whole.environment()
    )
    metrics = whole.lines(run / "metrics.jsonl")
    assert [line["batch"] for line in metrics] == list(range(1, 31))
    assert all(line["on_policy/log_rho_max"] < 1e-3 for line in metrics)
    # As verl's own evaluation has it, with servers, agent loop and reward function,
    before, after = (
        json.loads((run / "evaluations" / f"{name}.json").read_text())["sampled"]["overall"]
        for name in ("start", "final")
    )
    assert before["answers"] == after["answers"] >= 512
    assert after["low"] > before["high"]
    assert after["mean"] >= before["mean"] + 0.2
    # and as ours has it, of the model that was written.
    assert abs(_accuracy(run, sandbox) - after["mean"]) < 0.1


def _accuracy(run: Path, sandbox: Sandbox) -> float:
    recipe = load_recipe(str(run / "recipe.toml"), [])
    model = AutoModelForCausalLM.from_pretrained(run / "model")
    tokenizer = AutoTokenizer.from_pretrained(run / "model")
    generator = TransformersGenerator(model, tokenizer)
    policy = episode_policy(generator, tokenizer, sandbox, episode_settings(recipe), 1.0)
    problems = generate(recipe.data.held_out_problems, seed=0, split="held-out")
    return evaluate(problems, policy, samples_per_problem=4, batch_size=256).overall.mean
