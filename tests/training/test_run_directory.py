import json

import pytest

from ctpo.training.recipe.loading import load_recipe
from ctpo.training.run_directory import RunDirectory


@pytest.fixture
def directory(tmp_path):
    return RunDirectory.create(tmp_path / "run", load_recipe("tiny"))


def batches(directory):
    return [json.loads(x)["batch"] for x in (directory.path / "metrics.jsonl").open()]


def test_a_line_cut_short_by_a_kill_is_dropped_with_those_behind_the_checkpoint(directory):
    for batch in (1, 2, 3):
        directory.add_metrics({"batch": batch})
    with (directory.path / "metrics.jsonl").open("a") as file:
        file.write('{"batch": 4, "rew')
    directory.forget_after(2)
    assert batches(directory) == [1, 2]


def test_times_of_an_interrupted_part_are_added_to(directory):
    directory.add_timing({"updates": 1.0, "tools": 2.0})
    directory.add_timing({"updates": 0.5, "evaluation": 3.0})
    phases = json.loads((directory.path / "timing.json").read_text())["phases"]
    assert phases == {"updates": 1.5, "tools": 2.0, "evaluation": 3.0}


def test_the_newest_whole_checkpoint_counts(directory):
    for step, whole in ((9, True), (100, True), (200, False)):
        checkpoint = directory.checkpoints / f"checkpoint-{step}"
        checkpoint.mkdir()
        if whole:
            (checkpoint / "trainer_state.json").write_text("{}")
    assert directory.last_checkpoint().name == "checkpoint-100"


def test_an_existing_place_is_not_taken_and_resuming_is_named(directory):
    with pytest.raises(FileExistsError, match="--resume"):
        RunDirectory.create(directory.path, load_recipe("tiny"))


def test_what_is_no_run_directory_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="it has no recipe.toml"):
        RunDirectory.open(tmp_path)


def test_a_model_is_whole_or_not_there(tmp_path):
    run = RunDirectory.create(tmp_path / "run", load_recipe("tiny"))
    with pytest.raises(KeyboardInterrupt), run.writing_model() as aside:
        aside.mkdir()
        (aside / "config.json").write_text("{}")
        raise KeyboardInterrupt
    assert not run.model.exists()
    with run.writing_model() as aside:
        aside.mkdir()
        (aside / "model.safetensors").write_text("weights")
    assert [path.name for path in run.model.iterdir()] == ["model.safetensors"]
    assert not aside.exists()
