"""A run that something happened to must end with the bits of one that nothing happened to."""

import os
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file, save_file

from ctpo.engines.trl.episodes import EpisodeRollout
from ctpo.training.run_directory import RunDirectory
from ctpo.training.tiny.warm_start import fingerprint

from .harness import Struck, child, content, counted, train

pytestmark = pytest.mark.faults

MOMENTS = 12


def goes_on(path, cache, whole):
    """Resume; says what was said."""
    ended = child(lambda: train(path, cache))
    assert ended.code == 0, ended.said
    assert content(path) == content(whole)
    assert not list(path.rglob("*.unfinished"))
    return ended.said


@pytest.mark.parametrize("share", range(MOMENTS))
def test_killed_at_any_moment_it_ends_with_the_same_bits(tmp_path, cache, whole, events, share):
    path = tmp_path / "run"
    at = 1 + share * (events - 1) // (MOMENTS - 1)

    def work():
        counted(tmp_path, at)
        train(path, cache)

    assert child(work).code == -signal.SIGKILL
    goes_on(path, cache, whole)


@pytest.mark.parametrize("at", [1, 3, 6, 9])
def test_killed_while_the_warm_start_is_written_it_is_made_again(tmp_path, whole, at):
    path, cache = tmp_path / "run", tmp_path / "cache"

    def work():
        counted(cache, at)
        train(path, cache)

    assert child(work).code == -signal.SIGKILL
    goes_on(path, cache, whole)
    assert len([each for each in cache.iterdir() if each.is_dir()]) == 1


def test_killed_while_the_warm_start_learns_it_is_made_again(tmp_path, whole):
    path, cache = tmp_path / "run", tmp_path / "cache"
    strike = Struck("warm start", 10, lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert child(lambda: train(path, cache, listener=strike)).code == -signal.SIGKILL
    goes_on(path, cache, whole)


ENDS = {
    signal.SIGINT: 130,
    signal.SIGTERM: 143,
    signal.SIGHUP: 129,
    **{number: -number for number in (signal.SIGQUIT, signal.SIGUSR1, signal.SIGABRT)},
}


@pytest.mark.parametrize("number", ENDS, ids=lambda number: number.name)
def test_every_signal_leaves_a_run_that_goes_on(tmp_path, cache, whole, number):
    path = tmp_path / "run"
    strike = Struck("training", 2, lambda: os.kill(os.getpid(), number))
    ended = child(lambda: train(path, cache, listener=strike))
    assert ended.code == ENDS[number], ended.said
    if number in (signal.SIGTERM, signal.SIGHUP):
        assert ended.said.splitlines() == [f"{number.name}: ends after this batch"]
        assert (path / "checkpoints" / "checkpoint-4" / "files.json").is_file()
    goes_on(path, cache, whole)


def test_a_reward_that_raises_leaves_a_run_that_goes_on(tmp_path, cache, whole, monkeypatch):
    path, reward, calls = tmp_path / "run", EpisodeRollout.reward, iter(range(99))

    def raises(self, *args, **kwargs):
        if next(calls) == 2:
            raise ArithmeticError("a reward of mine")
        return reward(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(EpisodeRollout, "reward", raises)
        ended = child(lambda: train(path, cache))
    assert ended.code == 1 and "ArithmeticError: a reward of mine" in ended.said
    goes_on(path, cache, whole)


def test_a_reward_that_hangs_ends_at_the_second_signal(tmp_path, cache, whole, monkeypatch):
    path, reward, calls = tmp_path / "run", EpisodeRollout.reward, iter(range(99))

    def hangs(self, *args, **kwargs):
        if next(calls) == 2:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        return reward(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(EpisodeRollout, "reward", hangs)
        assert child(lambda: train(path, cache)).code == 143
    goes_on(path, cache, whole)


FILES = [
    "config.json",
    "model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "rollouts-0.pt",
    "tokenizer.json",
    "trainer_state.json",
    "training_args.bin",
    "files.json",
]


@pytest.mark.parametrize("name", FILES)
def test_of_a_truncated_checkpoint_the_file_is_named_and_the_bits_are_the_same(
    begun, cache, whole, name
):
    file = begun / "checkpoints" / "checkpoint-8" / name
    os.truncate(file, file.stat().st_size // 2)
    said = goes_on(begun, cache, whole)
    assert "checkpoint-8: " + name in said and "checkpoint-6, the one before" in said


def test_every_file_of_a_checkpoint_is_tried(whole):
    found = {file.name for file in (whole / "checkpoints" / "checkpoint-8").iterdir()}
    assert found - set(FILES) <= {"generation_config.json", "tokenizer_config.json"} | {
        "chat_template.jinja",
        "README.md",
    }


@pytest.mark.parametrize("batch", [1, 3])
def test_a_damaged_table_is_named_and_the_rest_is_the_same(begun, cache, whole, batch):
    file = begun / "positions.parquet" / f"batch-{batch:04d}.parquet"
    os.truncate(file, file.stat().st_size // 2)
    assert str(file) in child(lambda: train(begun, cache)).said
    wanted, found = content(whole), content(begun)
    for rows in (wanted, found):
        table = rows["positions.parquet"]
        assert isinstance(table, list)
        rows["positions.parquet"] = [row for row in table if row["batch"] != batch]
    assert found == wanted


@pytest.mark.parametrize("value", ["NaN", "infinite"])
def test_of_broken_weights_it_is_said_that_they_are(tmp_path, cache, whole, value):
    policy = cache / fingerprint(RunDirectory.open(whole).recipe)
    shutil.copytree(policy, tmp_path / "cache" / policy.name)
    file = tmp_path / "cache" / policy.name / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if "q_proj" in name)
    weights[name][0] = torch.nan if value == "NaN" else torch.inf
    save_file(weights, file, {"format": "pt"})
    ended = child(lambda: train(tmp_path / "run", tmp_path / "cache"))
    assert ended.code == 1 and f"weights are {value}" in ended.said and name in ended.said


def test_an_update_that_breaks_the_weights_is_no_checkpoint(tmp_path, cache):
    path = tmp_path / "run"
    rates = ("optimization.learning_rate=1e38", "optimization.schedule=constant")
    for _ in range(2):  # and again when the run goes on
        ended = child(lambda: train(path, cache, *rates))
        assert ended.code == 1 and "BrokenWeights: the model's weights are" in ended.said
        assert not list(path.glob("checkpoints/*/files.json"))


def test_two_processes_do_not_work_on_one_run(tmp_path, cache, whole):
    path = tmp_path / "run"
    second = []
    strike = Struck("training", 1, lambda: second.append(child(lambda: train(path, cache))))

    def work():
        train(path, cache, listener=strike)
        assert second[0].code == 1
        assert f"Busy: another process is at work in {path}" in second[0].said

    ended = child(work)
    assert ended.code == 0, ended.said
    assert content(path) == content(whole)
