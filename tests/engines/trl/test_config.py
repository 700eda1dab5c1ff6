import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from trl import TrlParser

from ctpo.engines.trl import CTPOConfig
from ctpo.objective import Mismatch, Objective, fixed, preset, register_preset, sqrt


def config(**changes):
    settings: dict[str, Any] = {
        "output_dir": "unused",
        "per_device_train_batch_size": 2,
        "steps_per_generation": 4,
        "num_generations": 4,
        "save_strategy": "no",
        "bf16": False,
        "report_to": "none",
        "use_cpu": True,
    }
    return CTPOConfig(**settings | changes)


def test_the_configuration_builds_the_preset_it_names():
    assert config().build_objective() == preset("ctpo")
    assert config(objective="gspo", clip_low=0.1).build_objective() == preset("gspo", clip_low=0.1)
    assert config(dual_clip="off").build_objective() == preset("ctpo", dual_clip=None)
    assert config(eps_low=0.1, eps_high=0.2, power=0.0).build_objective() == preset(
        "ctpo", eps_low=0.1, eps_high=0.2, power=0.0
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "cptpo"}, "ctpo"),
        ({"objective": "grpo", "eps_low": 0.1}, "eps_low"),
        ({"loss_type": "cispo"}, 'loss_type is .cispo.*objective="cispo".*grpo, bnpo, dapo, dr_g'),
        ({"loss_type": "luspo"}, 'loss_type is .luspo.*objective="gspo" with loss_type="dr_grpo"'),
        ({"loss_type": "gpro"}, "loss_type is 'gpro', which is not known; it is the reduction"),
        (
            {"objective": "gspo", "beta": 0.1},
            "use_bias_correction_kl is True.*Set use_bias_correction_kl=False",
        ),
        ({"off_policy_mask_threshold": -0.5}, "off_policy_mask_threshold is -0.5; it must be"),
        ({"top_p": 0.9}, "top_p is 0.9; it must be 1.0.*mass cut off"),
        ({"top_k": 50}, "top_k is 50; it must be 0"),
        ({"min_p": 0.1}, "min_p is 0.1; it must be None"),
        ({"repetition_penalty": 1.1}, "repetition_penalty is 1.1"),
        ({"generation_kwargs": {"top_p": 0.5}}, "top_p is 0.5"),
        ({"eps_low": -1.0}, "eps_low"),
        ({"generation_kwargs": {"temperature": 0.5}}, "temperature is 0.5; it must be 1.0"),
        ({"generation_kwargs": {"do_sample": False}}, "do_sample is False; it must be True"),
        ({"generation_kwargs": {"bad_words_ids": [[3]]}}, "generation_kwargs has 'bad_words_ids'"),
    ],
)
def test_a_knob_without_effect_or_with_harm_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        config(**changes)


@pytest.mark.parametrize("value", [0, -1, 1.5, math.nan, True])
@pytest.mark.parametrize(
    "name",
    [
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "num_generations",
        "num_iterations",
        "steps_per_generation",
        "generation_batch_size",
        "max_completion_length",
    ],
)
def test_a_count_that_is_none_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} is {value}; it must be an integer from 1"):
        config(**{name: value})


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["temperature", "beta"])
def test_a_number_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"^{name} is {value}; it must be .*, and finite"):
        config(**{name: value})
    with pytest.raises(ValueError, match="^temperature is 0.0; it must be above 0"):
        config(temperature=0.0)


def parsed(*arguments):
    common = ["--output_dir", "unused", "--report_to", "none", "--bf16", "false", "--use_cpu"]
    common += ["--save_strategy", "no", "--steps_per_generation", "4"]
    (found,) = TrlParser(CTPOConfig).parse_args_and_config([*common, *arguments])
    return found


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], preset("ctpo")),
        (
            ["--objective", "sapo", "--objective_parameters", '{"tau_pos": 0.9}'],
            preset("sapo", tau_pos=0.9),
        ),
        (["--objective_parameters={}"], preset("ctpo")),
        (
            ["--objective_parameters", '{"gradient": "literal", "dual_clip": "off"}'],
            preset("ctpo-printed", gradient="literal"),
        ),
        (["--eps_low", "1e-3", "--power", "0.4"], preset("ctpo", eps_low=1e-3, power=0.4)),
        (["--dual_clip", "off"], preset("ctpo-printed")),
        (["--dual_clip", "0.2"], preset("ctpo", dual_clip=0.2)),
        (["--objective", "grpo", "--clip_high", "0.3"], preset("grpo", clip_high=0.3)),
        (["--objective", "own_parts:tempered", "--eps_low=0.1"], None),
    ],
)
def test_trls_command_line_describes_the_objective(arguments, expected, registering):
    found = parsed(*arguments).build_objective()
    assert found == (expected or preset("tempered", eps_low=0.1))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("objective: sapo\nobjective_parameters:\n  tau_pos: 0.9\n  tau_neg: 1e0", ("sapo", {})),
        ('objective_parameters: \'{"dual_clip": "off"}\'', ("ctpo-printed", {})),
        ("eps_low: 1e-3\ndual_clip: off", ("ctpo-printed", {"eps_low": 1e-3})),
        ("eps_low: 1.0e-3\ndual_clip: 'off'", ("ctpo-printed", {"eps_low": 1e-3})),
        ("objective_parameters: {dual_clip: off}", ("ctpo-printed", {})),
        ("objective_parameters: {dual_clip: null}", ("ctpo-printed", {})),
    ],
)
def test_trls_configuration_file_describes_the_objective(text, expected, tmp_path):
    (tmp_path / "config.yaml").write_text(text)
    name, changes = expected
    if name == "sapo":
        changes = {"tau_pos": 0.9, "tau_neg": 1.0}
    found = parsed("--config", str(tmp_path / "config.yaml"))
    assert found.build_objective() == preset(name, **changes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--eps_low", "abc"], "^eps_low is 'abc'; it must be a number"),
        (["--eps_low", "off"], "^eps_low is 'off'; it must be a number"),
        (["--dual_clip", "of"], "^dual_clip is 'of'; it must be a number.*, or 'off'"),
        (["--objective_parameters", "tau"], "^objective_parameters is 'tau'; it must map names"),
        (
            ["--objective_parameters", '{"eps_low": "x"}'],
            "^objective_parameters.eps_low is 'x'; it must be a number",
        ),
        (["--objective_parameters", '{"tau_pos": 1}'], "unknown parameter of preset 'ctpo' 'tau_p"),
        (["--eps_low=0.1", "--objective_parameters", '{"eps_low": 0.1}'], "eps_low is given twice"),
        (["--objective", "none_of_mine:x"], "there is no module 'none_of_mine'"),
    ],
)
def test_trls_command_line_names_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        parsed(*arguments)


def test_an_objective_is_handed_to_the_trainer(make_trainer):
    mine = Objective(ratio="cumulative", surrogate="cispo", window=sqrt(0.025, 0.05))
    trainer = make_trainer(kwargs={"objective": mine})
    assert trainer.objective is mine
    trainer.train()
    assert trainer.state.global_step == 4


@pytest.mark.parametrize(
    ("objective", "changes", "error", "message"),
    [
        (preset("grpo"), {"objective": "gspo"}, ValueError, "CTPOConfig describes an objective"),
        (preset("grpo"), {"eps_low": 0.1}, ValueError, "describes an objective.*'eps_low': 0.1"),
        ("grpo", {}, TypeError, "objective is 'grpo'; it must be an Objective"),
        (
            preset("ctpo", mismatch=Mismatch(level="prefix")),
            {},
            ValueError,
            "Mismatch.* vllm_importance_sampling_correction",
        ),
    ],
)
def test_an_objective_that_cannot_be_trained_is_refused(
    objective, changes, error, message, make_trainer
):
    with pytest.raises(error, match=message):
        make_trainer(kwargs={"objective": objective}, **changes)


def test_a_registered_preset_is_trained_by_its_name(make_trainer, registering):
    mine = Objective(ratio="token", window=fixed(0.1, 0.2))
    register_preset("mine", mine)
    trainer = make_trainer(objective="mine", objective_parameters={"clip_low": "1e-1"})
    assert trainer.objective == mine
    register_preset("weighted", preset("ctpo", mismatch=Mismatch(level="prefix")))
    with pytest.raises(ValueError, match="Mismatch.* leave it out"):
        config(objective="weighted")


def test_on_policy_training_is_warned_of():
    with pytest.warns(UserWarning, match="every update is on-policy"):
        config(steps_per_generation=1, gradient_accumulation_steps=2, num_generations=2)


def test_updates_that_end_inside_a_batch_of_rollouts_are_off_policy(recwarn):
    config(steps_per_generation=6, gradient_accumulation_steps=4, num_generations=4)
    assert not [w for w in recwarn if "on-policy" in str(w.message)]


@pytest.mark.slow
def test_a_trainer_patched_by_another_library_is_refused():
    # In a process of its own: what Unsloth does to TRL cannot be undone.
    code = """
import trl
def compute_loss(self, *args, **kwargs): return 0
compute_loss.__module__ = "unsloth_compiled_cache.UnslothGRPOTrainer"
trl.GRPOTrainer.compute_loss = compute_loss
from ctpo.engines.trl import CTPOConfig, CTPOTrainer
try:
    CTPOTrainer(model="unused", args=None)
except RuntimeError as error:
    print(error)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "comes from unsloth_compiled_cache.UnslothGRPOTrainer, not from TRL" in shown.stdout


def test_adapters_are_trained_and_nothing_else(make_trainer):
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = make_trainer(kwargs={"peft_config": lora})
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    changed = {n for n, p in trainer.model.named_parameters() if not torch.equal(before[n], p)}
    assert changed
    assert all("lora_" in name for name in changed)


def test_bfloat16_trains_with_a_gradient_and_stays_on_policy(make_trainer):
    trainer = make_trainer(bf16=True, cast_lm_head_to_fp32=True)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    logged = []
    original = trainer.log

    def log(logs, *args):
        original(logs, *args)
        logged.append(logs)

    trainer.log = log
    trainer.train()
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    assert any(
        not torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True)
    )
    # The same shapes before and after: no rounding between old and new, even in bfloat16.
    assert logged[0]["ctpo/on_policy/log_rho_max"] == 0.0


def test_a_model_is_loaded_by_its_name(make_trainer, model, tokenizer, tmp_path):
    # A directory stands in for the Hub: the same call resolves both.
    model.save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    trainer = make_trainer(str(tmp_path / "policy"))
    trainer.train()
    assert trainer.state.global_step == 4


def test_statistics_by_position_are_logged_and_start_anew(make_trainer):
    trainer = make_trainer(max_steps=8)
    logged, positions = [], []
    original = trainer.log

    def log(logs, *args):
        if trainer.positions is not None:
            positions.append(trainer.positions.to_columns())
        original(logs, *args)
        logged.append(logs)

    trainer.log = log
    trainer.train()
    batches = [logs for logs in logged if "reward" in logs]
    assert len(batches) == 2
    for logs, columns in zip(batches, positions, strict=True):
        # 8 responses of 2 to 12 tokens, each seen by one update; the first is always unmasked.
        assert columns["position_low"][0] == 1
        assert columns["tokens"][0] == 8
        assert sum(columns["tokens"]) <= 8 * 12
        clipped = sum(columns["clipped_high"]) / sum(columns["tokens"])
        assert logs["ctpo/clip/high"] == pytest.approx(clipped)
        assert 0 < logs["entropy"] < 10


# Options of `GRPOConfig` and a value that is not the default, each refused by the name of ours.
RENAMED = {
    "delta": (2.0, "dual_clip"),
    "epsilon": (0.3, "clip_low"),
    "epsilon_high": (0.3, "clip_high"),
    "importance_sampling_level": ("sequence", 'objective="gspo"'),
    "sapo_temperature_neg": (2.0, 'objective="sapo"'),
    "sapo_temperature_pos": (2.0, 'objective="sapo"'),
    "vespo_k_neg": (2.5, 'objective="vespo"'),
    "vespo_k_pos": (2.5, 'objective="vespo"'),
    "vespo_lambda_neg": (2.5, 'objective="vespo"'),
    "vespo_lambda_pos": (2.5, 'objective="vespo"'),
}


@pytest.mark.parametrize("name", RENAMED)
def test_an_option_of_trls_surrogates_is_refused_by_the_name_of_ours(name):
    value, ours = RENAMED[name]
    with pytest.raises(ValueError, match=rf"{name} is {value!r}.*{ours}"):
        config(**{name: value})
    page = Path(__file__).parents[3] / "docs" / "trl.md"
    assert f"`{name}" in page.read_text()
