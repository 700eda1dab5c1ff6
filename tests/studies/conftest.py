"""A study of seconds: two methods, two seeds, one batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CTPO = Path(sys.executable).parent / "ctpo"

SMALL = """
name = "small"
question = "Does it run?"
recipe = "tiny"
reference = "grpo"
seeds = [0, 1]
cell_minutes = 0.1
threshold = 0.01
set = [
    "model.tiny.hidden_size=32", "model.tiny.layers=1", "model.tiny.intermediate_size=32",
    "warm_start.problems=300", "warm_start.transcripts=300", "warm_start.target_accuracy=0.0",
    "warm_start.check_every=30", "warm_start.decay_steps=10", "data.train_problems=70",
    "data.held_out_problems=7", "rollout.prompts_per_batch=2", "rollout.responses_per_prompt=4",
    "rollout.max_response_tokens=60", "optimization.batches=1", "optimization.updates_per_batch=2",
    "optimization.micro_batch=4", "evaluation.samples_per_problem=1", "evaluation.every=0",
]

[methods]
ctpo = ["objective.preset=ctpo"]
grpo = ["objective.preset=grpo", "objective.clip_high=inf"]
"""


@pytest.fixture(scope="session")
def small():
    return SMALL


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("studies")


@pytest.fixture(scope="session")
def command(home):
    """Start `ctpo study ...` as a shell does; the cache of warm starts is shared."""

    def start(*arguments):
        environment = os.environ | {"XDG_CACHE_HOME": str(home / "cache"), "COLUMNS": "200"}
        return subprocess.Popen(
            [CTPO, "study", *map(str, arguments)],
            cwd=home,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def ctpo(command):
    """Run it to its end; returns what it printed."""

    def run(*arguments, expect=0):
        process = command(*arguments)
        shown, _ = process.communicate()
        assert process.returncode == expect, shown
        return shown

    return run


@pytest.fixture(scope="session")
def whole(home, small, ctpo):
    """The directory of the small study, run to its end."""
    (home / "small.toml").write_text(small)
    ctpo("run", "small.toml", "--output", "whole")
    return home / "whole"
