import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctpo.engines.batch_files import batch_file
from ctpo.training.checkpoints import seal
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


def checkpoint(directory, step, keep=None):
    path = directory.checkpoints / f"checkpoint-{step}"
    (path / "inner").mkdir(parents=True)
    for name in ("optimizer.pt", "inner/model.safetensors"):
        (path / name).write_bytes(b"weights" * step)
    if keep is not False:
        seal(path, keep)
    return path


def test_a_checkpoint_that_was_not_finished_does_not_count(directory):
    for step, keep in ((9, None), (100, None), (200, False)):
        checkpoint(directory, step, keep)
    assert directory.last_checkpoint().name == "checkpoint-100"


@pytest.mark.parametrize("name", ["optimizer.pt", "inner/model.safetensors", "files.json"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-5]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(bytes(file.stat().st_size)),
        lambda file: file.unlink(),
    ],
    ids=["cut", "empty", "zeros", "gone"],
)
def test_of_a_damaged_checkpoint_the_file_is_named_and_the_one_before_taken(
    directory, caplog, name, damage
):
    for step in (9, 100):
        damaged = checkpoint(directory, step)
    damage(damaged / name)
    assert directory.last_checkpoint().name == "checkpoint-9"
    if (damaged / "files.json").exists() or "files" not in name:
        assert f"checkpoint-100: {name}" in caplog.text and "checkpoint-9, the" in caplog.text
        assert not damaged.exists()


def test_only_so_many_checkpoints_are_kept(directory):
    for step in (9, 100, 20):
        checkpoint(directory, step, keep=2)
    assert sorted(path.name for path in directory.checkpoints.iterdir()) == [
        "checkpoint-100",
        "checkpoint-20",
    ]


def test_what_json_has_no_number_for_is_null(directory):
    directory.add_metrics({"batch": 1, "loss": float("nan"), "grad_norm": float("inf"), "x": 2.5})
    (line,) = (directory.path / "metrics.jsonl").read_text().splitlines()
    wanted = {"batch": 1, "loss": None, "grad_norm": None, "x": 2.5}
    assert json.loads(line, parse_constant=pytest.fail) == wanted


@pytest.mark.parametrize(
    "table", ["positions.parquet", "trajectories.parquet", "transcripts.parquet"]
)
def test_a_damaged_file_of_a_table_is_set_aside_when_the_run_goes_on(directory, caplog, table):
    for batch in (1, 2, 3):
        pq.write_table(
            pa.table({"batch": [batch] * 99}), directory.path / table / batch_file(batch)
        )
    damaged = directory.path / table / batch_file(2)
    damaged.write_bytes(damaged.read_bytes()[:-9])
    directory.forget_after(3)
    assert str(damaged) in caplog.text and not damaged.exists()
    assert set(pq.read_table(directory.path / table)["batch"].to_pylist()) == {1, 3}


def test_a_damaged_line_of_metrics_is_set_aside(directory, caplog):
    for batch in (1, 2, 3):
        directory.add_metrics({"batch": batch})
    file = directory.path / "metrics.jsonl"
    file.write_text(file.read_text().replace('{"batch": 2}', "\0\0\0"))
    directory.forget_after(3)
    assert batches(directory) == [1, 3] and "metrics.jsonl is damaged" in caplog.text
    assert "\0" in (directory.path / "_damaged-metrics.jsonl").read_text()


def test_an_existing_place_is_not_taken_and_resuming_is_named(directory):
    with pytest.raises(FileExistsError, match="--resume"):
        RunDirectory.create(directory.path, load_recipe("tiny"))


def test_what_is_no_run_directory_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="it has no recipe.toml"):
        RunDirectory.open(tmp_path)


def test_a_model_is_whole_or_not_there(tmp_path):
    run = RunDirectory.create(tmp_path / "run", load_recipe("tiny"))
    with pytest.raises(KeyboardInterrupt), run.writing_model() as aside:
        (aside / "config.json").write_text("{}")
        raise KeyboardInterrupt
    assert not run.model.exists()
    with run.writing_model() as aside:
        (aside / "model.safetensors").write_text("weights")
    assert [path.name for path in run.model.iterdir()] == ["model.safetensors"]
    assert not aside.exists()
