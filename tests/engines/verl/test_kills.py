"""A run of verl killed at a moment, or its checkpoint cut, ends with every batch, each once.

`make test-long` runs it. The moments are not times: the actor stops there and waits for its end.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ctpo.engines.batch_files import batch_file
from ctpo.training.run_directory import RunDirectory
from ctpo.training.verl.files import Start, VerlFiles
from tests.engines.verl import whole
from tests.engines.verl.writing_model import save_writing_model, write_sums
from tests.waiting import eventually

pytestmark = [
    pytest.mark.long,
    pytest.mark.verl,
    pytest.mark.skipif(
        importlib.util.find_spec("verl") is None, reason="verl has no release for this Python"
    ),
]

BATCHES = 3
CHANGES: dict[str, dict[str, object]] = {
    "rollout": {"prompts_per_batch": 4, "responses_per_prompt": 2, "max_response_tokens": 48},
    "optimization": {
        "batches": BATCHES,
        "updates_per_batch": 2,
        "micro_batch": 4,
        "checkpoint_every": 1,
    },
    "evaluation": {"samples_per_problem": 1, "every": 0},
}
# What is under way, and after which batch the run goes on.
MOMENTS = {
    "before the first checkpoint": ("update 2", 0),
    "between checkpoints": ("update 6", 2),
    "while a checkpoint is written": ("save 2", 1),
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Returns a copy of a run that was killed at a moment."""
    home = tmp_path_factory.mktemp("killed")
    save_writing_model(home / "model")
    problems = home / "sums.parquet"
    write_sums(problems, copies=1)
    data = {
        "train": str(problems),
        "held_out": str(problems),
        "train_problems": 16,
        "held_out_problems": 4,
    }
    recipe = home / "recipe.toml"
    recipe.write_text(whole.recipe(home / "model", ranks=1, changes={**CHANGES, "data": data}))
    runs: dict[str, Path] = {}

    def run(moment: str, copy: Path) -> Path:
        if moment not in runs:
            path, paused = home / moment.replace(" ", "-"), home / f"{moment}.paused"
            log = home / f"{moment}.log"
            pause = {"CTPO_TEST_PAUSE": MOMENTS[moment][0], "CTPO_TEST_PAUSED": str(paused)}
            environment = whole.environment("tests.engines.verl.pauses", **pause)
            command = [whole.CTPO, "train", recipe, "--output", path]
            with whole.started(command, log, environment) as process:
                ended = eventually(
                    lambda: "killed" if paused.is_file() else process.poll(),
                    lambda now: now is not None,
                    moment,
                    patience=whole.PATIENCE,
                )
            said = path / "verl" / "log.txt"
            assert ended == "killed", (said if said.is_file() else log).read_text()[-8000:]
            runs[moment] = path
        shutil.copytree(runs[moment], copy)
        return copy

    return run


def resumed(path: Path) -> str:
    """What is said; at the end every batch is there, and once."""
    said = whole.finished(
        [whole.CTPO, "train", "--resume", path], path.parent / "log", whole.environment()
    )
    batches = list(range(1, BATCHES + 1))
    assert [line["batch"] for line in whole.lines(path / "metrics.jsonl")] == batches
    tables = sorted(file.name for file in (path / "positions.parquet").iterdir())
    assert tables == [batch_file(batch) for batch in batches]
    assert RunDirectory(path).finished
    return said


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_a_moment_it_ends_with_every_batch_once(
    killed: Any, tmp_path: Path, moment: str
) -> None:
    path = killed(moment, tmp_path / "run")
    assert "damaged" not in resumed(path)
    assert VerlFiles(path).starts()[-1] == Start(2, MOMENTS[moment][1])


def test_a_cut_file_of_the_newest_checkpoint_is_named_and_the_one_before_is_taken(
    killed: Any, tmp_path: Path
) -> None:
    path = killed("between checkpoints", tmp_path / "run")
    actor = path / "checkpoints" / "global_step_2" / "actor"
    file = next(actor.glob("model_*.pt"))
    os.truncate(file, file.stat().st_size // 2)
    said = " ".join(resumed(path).split())
    assert f"global_step_2: actor/{file.name} is not whole" in said
    assert "The run goes on from global_step_1" in said
    assert VerlFiles(path).starts()[-1] == Start(2, 1)
