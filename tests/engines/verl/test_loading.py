"""Three ways to load the plug-in, each in a process of its own, and what is said if none worked."""

import importlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl has no release for this Python")

from ctpo.engines.verl import check, plugin

PLUGIN = plugin.__name__

SAY = """
import sys
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY
from verl.workers.engine_workers import TrainingWorker
plugin = sys.modules.get("ctpo.engines.verl.plugin")
recorded = hasattr(TrainingWorker.train_mini_batch, "_ctpo_wrapped")
print("loaded:", plugin is not None, "ctpo" in POLICY_LOSS_REGISTRY, recorded)
"""
JUST_VERL = "import verl" + SAY
BY_TARGET = (
    """
import sys
from hydra import compose, initialize_config_module
from verl.utils.config import omega_conf_to_dataclass
assert not any(name.startswith("ctpo") for name in sys.modules)
section = "actor_rollout_ref.actor"
overrides = [
    f"{section}.policy_loss._target_=ctpo.engines.verl.loss_config.CTPOPolicyLossConfig",
    f"{section}.policy_loss.loss_mode=ctpo",
    f"{section}.ppo_micro_batch_size_per_gpu=1",
]
with initialize_config_module("verl.trainer.config", version_base=None):
    config = compose("ppo_trainer", overrides)
omega_conf_to_dataclass(config.actor_rollout_ref.actor)
"""
    + SAY
)

# Run by Python before anything else, from a directory in PYTHONPATH.
BREAKS_A_MODULE = """
import importlib.abc, sys
class Broken(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "ctpo.engines.verl.hooks":
            raise ImportError("a library is missing here")
sys.meta_path.insert(0, Broken())
"""
ASK = "from ctpo.engines.verl import check; found = check.plugin_loaded(); print(found)"
DOCTOR = """
import sys
from ctpo.cli import main
if __name__ == "__main__":
    sys.argv = ["ctpo", "doctor", "--engine", "verl"]
    main()
"""
NO_PLUGINS = {"VERL_USE_EXTERNAL_PLUGINS": "none"}

# Program, environment, what Python runs before.
PROGRAMS: dict[str, tuple[str, dict[str, str], str]] = {
    "external module": (JUST_VERL, NO_PLUGINS | {"VERL_USE_EXTERNAL_MODULES": PLUGIN}, ""),
    "target": (BY_TARGET, NO_PLUGINS, ""),
    "broken": (ASK, {}, BREAKS_A_MODULE),
    "verl is broken": (ASK, {"VERL_USE_EXTERNAL_MODULES": "no_such_module"}, ""),
    "doctor": (DOCTOR, {"COLUMNS": "1000"}, ""),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What each program printed; two run at a time, since importing verl takes seconds."""
    from concurrent.futures import ThreadPoolExecutor

    def run(name):
        program, environment, first = PROGRAMS[name]
        directory = tmp_path_factory.mktemp("first")
        Path(directory, "sitecustomize.py").write_text(first)
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(directory), "OMP_NUM_THREADS": "1"} | environment,
        )
        return done.stdout + done.stderr

    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(PROGRAMS, pool.map(run, PROGRAMS), strict=True))


@pytest.mark.verl
def test_the_doctor_proves_it_in_a_fresh_process_and_in_a_ray_worker(said):
    lines = [line for line in said["doctor"].splitlines() if "losses registered" in line]
    assert ["a fresh process" in line for line in lines] == [True, False]
    assert ["a Ray worker" in line for line in lines] == [False, True]
    for line in lines:
        assert "good" in line and "19 losses registered (verl 0.9" in line
        assert sys.executable in line


@pytest.mark.verl
@pytest.mark.parametrize("way", ["external module", "target"])
def test_each_other_way_alone_registers_and_records(way, said):
    assert "loaded: True True True" in said[way]


@pytest.mark.verl
@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("broken", ["importing ctpo.engines.verl.plugin fails", "a library is missing here"]),
        ("verl is broken", ["a fresh process ended with 1", "no_such_module"]),
    ],
)
def test_what_verl_hides_is_said_in_words(case, words, said):
    assert "loaded=False" in said[case]
    for part in words:
        assert part in said[case]


def test_a_plug_in_that_is_switched_off_is_said(monkeypatch):
    monkeypatch.delitem(sys.modules, PLUGIN)
    monkeypatch.setenv("VERL_USE_EXTERNAL_PLUGINS", "other,another")
    found = check.here()
    assert not found.loaded
    assert "VERL_USE_EXTERNAL_PLUGINS is 'other,another'; leave it out, add 'ctpo'" in found.words


def test_a_plug_in_that_is_not_announced_is_said(monkeypatch):
    monkeypatch.delitem(sys.modules, PLUGIN)
    nothing = importlib.metadata.EntryPoints()
    monkeypatch.setattr(check.importlib.metadata, "entry_points", lambda group: nothing)
    found = check.here()
    assert not found.loaded and "does not announce it" in found.words


def test_losses_that_were_replaced_are_named(monkeypatch):
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

    monkeypatch.setitem(POLICY_LOSS_REGISTRY, "ctpo", POLICY_LOSS_REGISTRY["vanilla"])
    monkeypatch.delitem(POLICY_LOSS_REGISTRY, "pnpo")
    found = check.here()
    assert not found.loaded and "ctpo, pnpo were replaced" in found.words


def test_importing_the_package_imports_neither_verl_nor_ray():
    program = (
        "import sys, ctpo, ctpo.engines.verl, ctpo.engines.verl.check, ctpo.engines.verl.paths; "
        "print({'torch', 'transformers', 'verl', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_a_function_of_verls_that_has_changed_is_refused(monkeypatch):
    from verl.workers import engine_workers

    from ctpo.engines.verl import hooks

    worker = engine_workers.TrainingWorker
    monkeypatch.setattr(worker, "train_mini_batch", lambda self, data, epochs: None)
    with pytest.raises(RuntimeError, match=r"train_mini_batch with .*'epochs'.*verl>=0.9,<0.10"):
        hooks.wrap(engine_workers)


def test_loading_twice_changes_nothing():
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY
    from verl.workers.engine_workers import TrainingWorker

    from ctpo.engines.verl import hooks, loss

    before = dict(POLICY_LOSS_REGISTRY), TrainingWorker.train_mini_batch
    loss.register()
    hooks.install()
    assert (dict(POLICY_LOSS_REGISTRY), TrainingWorker.train_mini_batch) == before


def test_a_package_that_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(check.importlib.util, "find_spec", lambda name: None)
    assert check.plugin_loaded().words.startswith("verl is not installed")


def test_a_plug_in_that_fails_is_loud_where_verl_hides_it(monkeypatch, caplog):
    from ctpo.engines.verl import hooks

    def fail():
        raise RuntimeError("verl has changed")

    monkeypatch.setattr(hooks, "install", fail)
    with pytest.raises(RuntimeError, match="verl has changed"):
        importlib.reload(plugin)
    assert "verl has to do without ctpo, whose plug-in fails" in caplog.text
