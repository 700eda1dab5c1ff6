"""Statistics by position: one file per training step, whole, and right over ranks."""

import asyncio
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

pytest.importorskip("verl", reason="verl has no release for this Python")

from transformers import AutoModelForCausalLM
from verl.workers.config import PolicyLossConfig

from ctpo.engines.verl import hooks, recording
from ctpo.engines.verl.loss_config import CTPOPolicyLossConfig
from ctpo.objective import preset
from tests.engines.verl.batches import by_autograd, random_rows, train
from tests.engines.verl.cpu.worker import training_worker

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


@pytest.fixture(scope="module")
def worker(tiny_model):
    with training_worker(tiny_model, {"optim.lr": 0.0}) as one:
        yield one


@pytest.fixture
def step_files(monkeypatch):
    """As in a process that has just started."""
    fresh = recording.StepFiles()
    monkeypatch.setattr(recording, "step_files", fresh)
    return fresh


def config_with(directory):
    return CTPOPolicyLossConfig(loss_mode="ctpo", positions=str(directory))


def assert_columns(file, expected):
    """A file holds the statistics, whose log-probs are another computation's."""
    table = pq.read_table(file).to_pydict()
    for name, column in expected.items():
        assert table[name] == pytest.approx(column, rel=1e-4, abs=1e-5), name


@pytest.fixture(scope="module")
def two_ranks(tiny_model, tmp_path_factory):
    """What a group of two processes wrote."""
    directory = tmp_path_factory.mktemp("ranks")
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.engines.verl.two_ranks"]
            + [str(rank), str(tiny_model), str(directory)],
            cwd=REPOSITORY,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    for rank in ranks:
        said, _ = rank.communicate()
        assert rank.returncode == 0, said
    return directory


@pytest.mark.verl
def test_data_parallel_ranks_write_the_statistics_of_the_whole_batch(two_ranks, model):
    directory = two_ranks / "data_parallel"
    loss, norm, whole = by_autograd(model, random_rows(model), preset("ctpo"))
    files = list((directory / "positions.parquet").iterdir())
    assert [file.name for file in files] == ["batch-0001.parquet"]
    assert_columns(files[0], {"batch": [1] * len(whole.to_columns()["tokens"])})
    assert_columns(files[0], whole.to_columns())
    for rank in (0, 1):
        said = json.loads((directory / f"rank-{rank}.json").read_text())
        assert said["loss"] == pytest.approx(loss, rel=1e-5, abs=1e-5 * norm)
        assert said["grad_norm"] == pytest.approx(norm, rel=1e-5)
        for name, value in whole.summary().items():
            assert said[f"actor/ctpo/{name}"] == pytest.approx(value, rel=1e-4, abs=1e-6), name


@pytest.mark.verl
def test_ranks_that_share_sequences_count_them_once(two_ranks, model):
    directory = two_ranks / "sequence_parallel"
    masks = [mask for _, _, mask, *_ in random_rows(model)]
    (file,) = (directory / "positions.parquet").iterdir()
    table = pq.read_table(file).to_pydict()
    lengths = torch.stack([mask.sum() for mask in masks])
    counts = [int((lengths >= t).sum()) for t in range(1, int(lengths.max()) + 1)]
    assert (table["position_low"], table["tokens"]) == (list(range(1, len(counts) + 1)), counts)
    assert json.loads((directory / "rank-1.json").read_text()) is None  # rank 0 hands back


SPLIT = {"mini_batch_size": 3, "micro_batch_tokens": 20}


def files_in(directory):
    return sorted(file.name for file in directory.iterdir())


def test_every_step_gets_a_file_that_holds_all_its_updates(worker, model, step_files, tmp_path):
    first, second, third = (random_rows(model, seed) for seed in range(3))
    step_files.weights_are_of(0)
    train(worker, first, config_with(tmp_path), **SPLIT)
    step_files.weights_are_of(1)
    train(worker, second, config_with(tmp_path), **SPLIT)
    train(worker, third, config_with(tmp_path), **SPLIT)  # as asynchronous training does
    assert files_in(tmp_path) == ["batch-0001.parquet", "batch-0002.parquet"]
    of = [by_autograd(model, rows, preset("ctpo"))[2] for rows in (first, second, third)]
    assert_columns(tmp_path / "batch-0001.parquet", of[0].to_columns())
    assert_columns(tmp_path / "batch-0002.parquet", (of[1] + of[2]).to_columns())


def test_a_resumed_run_goes_on_at_its_step_and_drops_what_lies_beyond(
    worker, model, step_files, tmp_path, monkeypatch
):
    rows = random_rows(model)
    for step in (0, 1, 2, 3):
        step_files.weights_are_of(step)
        train(worker, rows, config_with(tmp_path), **SPLIT)
    (tmp_path / "notes.txt").write_text("not ours")
    # Killed during step 5, and resumed from the checkpoint of step 2.
    monkeypatch.setattr(recording, "step_files", recording.StepFiles())
    recording.step_files.weights_are_of(2)
    train(worker, random_rows(model, seed=1), config_with(tmp_path), **SPLIT)
    names = [f"batch-000{step}.parquet" for step in (1, 2, 3)]
    assert files_in(tmp_path) == [*names, "notes.txt"]
    again = by_autograd(model, random_rows(model, seed=1), preset("ctpo"))[2]
    assert_columns(tmp_path / "batch-0003.parquet", again.to_columns())


def test_a_step_whose_number_is_unknown_is_refused(worker, model, step_files, tmp_path):
    with pytest.raises(RuntimeError, match="number of the training step is unknown"):
        train(worker, random_rows(model), config_with(tmp_path), **SPLIT)
    assert files_in(tmp_path) == []


def test_verl_tells_the_step_with_the_weights(step_files):
    from verl.single_controller.base.decorator import MAGIC_ATTR
    from verl.workers.engine_workers import ActorRolloutRefWorker

    told = []

    async def update_weights(self, global_steps=None, mode="auto"):
        told.append((global_steps, mode))

    asyncio.run(hooks._numbered(update_weights)(None, global_steps=7, mode="naive"))
    assert (step_files.step, told) == (8, [(7, "naive")])
    # Ray makes an asynchronous actor of it, and verl dispatches it, as before.
    assert inspect.iscoroutinefunction(ActorRolloutRefWorker.update_weights)
    dispatch = getattr(ActorRolloutRefWorker.update_weights, MAGIC_ATTR)
    assert dispatch == getattr(ActorRolloutRefWorker.update_weights.__wrapped__, MAGIC_ATTR)


def test_nothing_is_written_or_recorded_unless_a_loss_of_ours_asks_for_it(
    worker, model, step_files, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    found = train(worker, random_rows(model), CTPOPolicyLossConfig(), **SPLIT)
    assert "actor/ctpo/ess" in found
    theirs = train(worker, random_rows(model), PolicyLossConfig(), **SPLIT)
    assert "actor/pg_clipfrac" in theirs and not any("ctpo" in name for name in theirs)
    assert files_in(tmp_path) == []
