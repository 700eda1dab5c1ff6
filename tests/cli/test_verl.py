"""Training on verl from the command line, as far as it goes without starting verl."""

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ctpo.cli.app import app

pytest.importorskip("verl", reason="verl is not installed: it has no release for this Python")

CTPO = Path(sys.executable).parent / "ctpo"


def train(*arguments, expect):
    shown = CliRunner().invoke(app, ["train", *map(str, arguments)])
    assert shown.exit_code == expect, shown.output
    return shown


def test_a_dry_run_prints_recipe_settings_configuration_and_command_and_does_nothing(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    text = train("qwen3-4b", "--dry-run", "--output", "out", expect=0).stdout
    recipe, _, rest = text.partition("# What the recipe decides of verl's settings\n")
    assert tomllib.loads(recipe)["engine"] == "verl"
    decided, _, rest = rest.partition(f"\n# {tmp_path}/out/verl/config.yaml\n")
    assert "actor_rollout_ref.actor.ppo_mini_batch_size=32\n" in decided
    configuration, _, command = rest.partition("\n# The command\n")
    from omegaconf import OmegaConf

    config = OmegaConf.create(configuration)
    assert config.actor_rollout_ref.actor.policy_loss.loss_mode == "ctpo"
    for line in decided.strip().splitlines():
        key, _, value = line.partition("=")
        assert OmegaConf.select(config, key) == json.loads(value), key
    assert "-m verl.trainer.main_ppo --config-path" in command
    assert not list(tmp_path.iterdir())


def test_another_engine_can_be_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    changes = ["optimization.schedule=constant", "optimization.warmup_fraction=0"]
    sets = [part for c in [*changes, "verl.gpus_per_node=1"] for part in ("--set", c)]
    shown = train("tiny", "--engine", "verl", *sets, "--dry-run", expect=0).stdout
    assert "main_ppo" in shown
    shown = train("tiny-verl", "--engine", "trl", "--dry-run", expect=0).stdout
    assert tomllib.loads(shown)["engine"] == "trl"


# Whatever generates, and is not looked for.
ANY = ["tiny-verl", "--set", "verl.rollout_engine=any"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny", "--engine", "verl"], "optimization.schedule is 'linear'; on verl it must be"),
        (["tiny-verl", "--set", "verl.gpus_per_node=3"], "which 3 GPUs cannot share"),
        ([*ANY, "--set", 'verl.overrides=["a.b=1"]'], "verl's configuration cannot be made"),
        ([*ANY, "--set", "data.train=none.parquet"], "none.parquet: no such file"),
        (
            [*ANY, "--set", "model.tiny=", "--set", "warm_start=", "--set", "model.path=nowhere"],
            "nowhere cannot be loaded",
        ),
    ],
)
def test_what_is_wrong_is_one_sentence_and_leaves_nothing_behind(
    arguments, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shown = train(*arguments, expect=1)
    assert message in shown.stderr
    assert "Traceback" not in shown.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.verl
def test_a_plug_in_that_is_not_loaded_is_noticed_before_anything_starts(tmp_path):
    """In a process of its own: what verl has imported once stays imported."""
    environment = os.environ | {"VERL_USE_EXTERNAL_PLUGINS": "none"}
    shown = subprocess.run(
        [CTPO, "train", *ANY], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert shown.returncode == 1, shown.stdout + shown.stderr
    assert "verl would not find ctpo's losses" in shown.stderr
    assert "VERL_USE_EXTERNAL_PLUGINS is 'none'" in shown.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vllm is installed")
def test_a_generator_that_is_not_installed_is_noticed_before_anything_starts():
    assert "vllm is not installed" in train("tiny-verl", expect=1).stderr


def test_the_paths_are_those_of_files():
    shown = CliRunner().invoke(app, ["verl", "paths"])
    assert shown.exit_code == 0
    lines = [line.rsplit(maxsplit=1) for line in shown.stdout.replace("\n/", " /").splitlines()]
    assert [lines[0][0], lines[0][1]] == ["search path", "pkg://ctpo.engines.verl.config"]
    assert len(lines) > 2
    assert all(Path(path).is_file() for _, path in lines[1:])


@pytest.mark.parametrize(
    ("saved", "log", "words"),
    [
        (b'{"answer": 1}\n', "y.parquet", "batch.pt is no batch that save_to_disk or torch.save"),
        (b"", "y.parquet", "batch.pt is no batch"),
        (b"PK\x03\x04", "y.parquet", "batch.pt is no batch"),
        (None, "y.parquet", "batch.pt: No such file"),
        (b"", "y.jsonl", "give it a name that ends in .parquet"),
    ],
)
def test_what_is_no_saved_batch_is_named(saved, log, words, tmp_path):
    file = tmp_path / "batch.pt"
    if saved is not None:
        file.write_bytes(saved)
    command = ["verl", "log", str(file), "--output", str(tmp_path / log)]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 1 and words in shown.stderr and "Traceback" not in shown.output
    assert not (tmp_path / log).exists()
