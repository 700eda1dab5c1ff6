"""Objectives of one's own by name in verl's registry, and in a worker that has imported nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("verl", reason="verl has no release for this Python")

from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, get_policy_loss_fn
from verl.workers.config import PolicyLossConfig

from ctpo.engines.verl import loss
from ctpo.engines.verl.loss_config import CTPOPolicyLossConfig
from ctpo.engines.verl.names import PRESET_OF, loss_name
from ctpo.objective import PRESETS, Mismatch, Objective, fixed, preset, register_preset
from tests.engines.verl.test_loss_config import ACTOR, PACKAGE, SECTION, composed, loaded

pytestmark = pytest.mark.usefixtures("registering")
EXAMPLES = Path(__file__).parents[3] / "examples"


def test_a_registered_preset_is_a_loss_of_verls_at_once():
    mine = Objective(ratio="token", window=fixed(0.1, 0.2))
    register_preset("mine", mine)
    assert get_policy_loss_fn("mine") is loss.policy_loss
    assert (loss_name("mine"), PRESET_OF["mine"], len(PRESET_OF)) == ("mine", "mine", len(PRESETS))
    section = CTPOPolicyLossConfig(loss_mode="mine", clip_low="0.3")
    assert loss.objective_of(section) == preset("mine", clip_low=0.3)  # type: ignore[call-overload]
    assert loss.objective_of(PolicyLossConfig(loss_mode="mine")) == mine


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("vanilla", RuntimeError, "'vanilla' is already registered with verl, from verl"),
        (
            "ctpo-gspo",
            ValueError,
            "'ctpo-gspo' has the name of the loss of 'gspo' on",
        ),
    ],
)
def test_a_name_that_verl_cannot_tell_apart_is_not_registered_at_all(name, error, message):
    before = dict(POLICY_LOSS_REGISTRY)
    with pytest.raises(error, match=message):
        register_preset(name, preset("ctpo"))
    assert name not in PRESETS and before == POLICY_LOSS_REGISTRY
    assert "ctpo" in PRESET_OF and "vanilla" not in PRESET_OF
    assert len(list(PRESET_OF)) == len(PRESETS)


def test_a_section_imports_the_module_before_its_loss_is_looked_up():
    assert "tempered" not in POLICY_LOSS_REGISTRY
    settings = loaded(
        *PACKAGE,
        f"{SECTION}.import_=own_parts",
        f"{SECTION}.loss_mode=tempered",
        f"+{SECTION}.parameters.until=8",
    ).policy_loss
    assert get_policy_loss_fn("tempered") is loss.policy_loss
    assert loss.objective_of(settings) == preset("tempered", until=8)  # type: ignore[call-overload]


@pytest.mark.parametrize("loss_mode", ["ctpo", "own_parts:tempered"])
def test_an_objective_in_a_module_is_the_loss(loss_mode, tmp_path, monkeypatch):
    (tmp_path / "own_objective.py").write_text(
        "from ctpo.objective import preset\nmine = preset('gspo', clip_low=0.5)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_objective", raising=False)
    loss_mode = loss_mode.replace("own_parts:tempered", "own_objective:mine")
    if loss_mode != "ctpo":  # a worker that has loaded the section before
        CTPOPolicyLossConfig(import_="own_objective:mine")
    section = CTPOPolicyLossConfig(loss_mode=loss_mode, import_="own_objective:mine")
    assert loss.objective_of(section) == preset("gspo", clip_low=0.5)
    assert get_policy_loss_fn("own_objective:mine") is loss.policy_loss
    monkeypatch.delitem(sys.modules, "own_objective")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"import_": "no_module_of_mine"},
            "policy_loss.import_ is .*no module 'no_module_of_mine'",
        ),
        ({"import_": "own_parts:nothing"}, "has no objective 'nothing'"),
        ({"import_": "own_parts", "loss_mode": "temperd"}, "did you mean 'tempered'"),
        (
            {"import_": "own_parts:tempered", "loss_mode": "grpo"},
            "policy_loss.import_ is 'own_parts:tempered', which names the objective",
        ),
        (
            {"import_": "own_parts", "loss_mode": "tempered", "parameters": {"until": 2.5}},
            "policy_loss.parameters.until is 2.5; it must be a whole number",
        ),
    ],
)
def test_an_import_that_leads_nowhere_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        CTPOPolicyLossConfig(**settings)


def test_weights_against_the_generator_are_left_to_verl():
    register_preset("weighted", preset("ctpo", mismatch=Mismatch(level="prefix")))
    with pytest.raises(ValueError, match="Mismatch.*rollout_correction.rollout_is=prefix"):
        CTPOPolicyLossConfig(loss_mode="weighted")
    with pytest.raises(ValueError, match="Mismatch.*rollout_correction.rollout_is=prefix"):
        loss.objective_of(PolicyLossConfig(loss_mode="weighted"))


def test_verls_check_knows_a_module_and_what_goes_with_its_method(tmp_path, monkeypatch):
    from verl.trainer import main_ppo

    (tmp_path / "own_method.py").write_text(
        "from ctpo.objective import Preset, preset\n"
        "mine = Preset(preset('grpo'), reduction='seq-mean-token-sum')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    config = composed(
        "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1",
        "actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=1",
        "algorithm.adv_estimator=grpo",
        *PACKAGE,
        f"{SECTION}.import_=own_method:mine",
    )
    with pytest.warns(UserWarning, match="loss_agg_mode is 'token-mean'; .*'seq-mean-token-sum'"):
        main_ppo.validate_config(config, False, False)
    config = OmegaConf.merge(config, OmegaConf.from_dotlist([f"{ACTOR}.clip_ratio=0.3"]))
    with pytest.raises(ValueError, match="clip_ratio is 0.3"):
        main_ppo.validate_config(config, False, False)
    sys.modules.pop("own_method", None)


@pytest.mark.verl
@pytest.mark.parametrize("how", ["external", "section"])
def test_a_process_of_verls_own_finds_the_loss(how):
    """What a worker does: verl with its plug-ins, the section of the loss, the lookup."""
    section = (
        "PolicyLossConfig(loss_mode='tempered')"
        if how == "external"
        else "hydra.utils.instantiate({'_target_': 'ctpo.engines.verl.loss_config."
        "CTPOPolicyLossConfig', 'import_': 'own_parts', 'loss_mode': 'tempered'})"
    )
    code = f"""
import hydra, verl
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.workers.config import PolicyLossConfig
section = {section}
loss = get_policy_loss_fn(section.loss_mode)
from ctpo.engines.verl.loss import objective_of
print(loss.__module__, objective_of(section))
"""
    environment = os.environ | {"PYTHONPATH": str(EXAMPLES)}
    if how == "external":
        environment["VERL_USE_EXTERNAL_MODULES"] = "own_parts"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert shown.returncode == 0, shown.stderr[-2000:]
    assert "ctpo.engines.verl.loss Objective(ratio=TemperedRatio(" in shown.stdout
