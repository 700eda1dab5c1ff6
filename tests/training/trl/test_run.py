"""Every field of a recipe has an effect on TRL, or is another engine's."""

import dataclasses

import pytest

from ctpo.training import policy
from ctpo.training.policy import episode_settings, start_sandbox
from ctpo.training.recipe.loading import load_recipe
from ctpo.training.trl.config import trl_config
from ctpo.training.verl.fields import field_names

LARGE = "qwen3-4b-1gpu"

# A change of each field that reaches TRL's configuration, the episodes or the sandbox.
CHANGES = {
    "seed": ("tiny", "seed=7"),
    "model.precision": (LARGE, "model.precision=float32"),
    "model.gradient_checkpointing": (LARGE, "model.gradient_checkpointing=false"),
    "model.chat_template_kwargs": (LARGE, "model.chat_template_kwargs.enable_thinking=true"),
    "objective.preset": ("tiny", "objective.preset=ctpo-printed"),
    "objective.import": ("tiny", "objective.import=own_parts:tempered"),
    "objective.reduction": ("tiny", "objective.reduction=token-mean"),
    "objective.advantages": ("tiny", "objective.advantages=centered"),
    "objective.eps_low": ("tiny", "objective.eps_low=0.1"),
    "objective.eps_high": ("tiny", "objective.eps_high=0.1"),
    "objective.power": ("tiny", "objective.power=1.0"),
    "objective.clip_low": ("qwen3-4b-grpo", "objective.clip_low=0.1"),
    "objective.clip_high": ("qwen3-4b-grpo", "objective.clip_high=0.1"),
    "objective.dual_clip": ("tiny", "objective.dual_clip=off"),
    "objective.parameters": ("tiny", "objective.parameters.gradient=literal"),
    "rollout.prompts_per_batch": ("tiny", "rollout.prompts_per_batch=32"),
    "rollout.responses_per_prompt": ("tiny", "rollout.responses_per_prompt=16"),
    "rollout.temperature": ("tiny", "rollout.temperature=0.5"),
    "rollout.max_response_tokens": ("tiny", "rollout.max_response_tokens=99"),
    "rollout.protocol": (LARGE, "rollout.protocol=hermes"),
    "rollout.max_calls": ("tiny", "rollout.max_calls=1"),
    "rollout.max_output_chars": ("tiny", "rollout.max_output_chars=99"),
    "rollout.max_output_tokens": ("tiny", "rollout.max_output_tokens=99"),
    "rollout.mismatch_cap": (LARGE, "rollout.mismatch_cap=3"),
    "vllm.gpu_memory_share": (LARGE, "vllm.gpu_memory_share=0.5"),
    "vllm.max_context_tokens": (LARGE, "vllm.max_context_tokens=9000"),
    "vllm.sleep": (LARGE, "vllm.sleep=false"),
    "optimization.batches": ("tiny", "optimization.batches=7"),
    "optimization.updates_per_batch": ("tiny", "optimization.updates_per_batch=8"),
    "optimization.micro_batch": ("tiny", "optimization.micro_batch=4"),
    "optimization.learning_rate": ("tiny", "optimization.learning_rate=0.5"),
    "optimization.schedule": ("tiny", "optimization.schedule=constant"),
    "optimization.warmup_fraction": ("tiny", "optimization.warmup_fraction=0.5"),
    "optimization.max_grad_norm": ("tiny", "optimization.max_grad_norm=0.5"),
    "optimization.weight_decay": ("tiny", "optimization.weight_decay=0.5"),
    "optimization.adam_epsilon": ("tiny", "optimization.adam_epsilon=0.5"),
    "optimization.kl_coef": ("tiny", "optimization.kl_coef=0.5"),
    "optimization.entropy_coef": ("tiny", "optimization.entropy_coef=0.5"),
    "optimization.checkpoint_every": ("tiny", "optimization.checkpoint_every=3"),
    "sandbox.timeout": ("tiny", "sandbox.timeout=9"),
    "sandbox.memory_mb": ("tiny", "sandbox.memory_mb=99"),
    "sandbox.preload": ("tiny", 'sandbox.preload=["math"]'),
    "sandbox.allow_weak": ("tiny", "sandbox.allow_weak=true"),
    "sandbox.max_failure_share": ("tiny", "sandbox.max_failure_share=0.5"),
}

# What our own code around the trainer does, and where.
AROUND = {
    "name": "the run directory's",
    "threads": "`run.run`",
    "engine": "`run.run`",
    "model.path": "`Job.policy_path`",
    "model.lora": "`trl.run._lora`",
    "model.tokenizer": "`models.load_tokenizer`",
    "model.chat_template": "`models.load_tokenizer`",
    "model.tiny": "`tiny.build_model`",
    "warm_start": "`warm_start` and `supervised`",
    "data": "`problems.problems`",
    "optimization.keep_checkpoints": "`checkpoints.seal`",
    "rollout.generator": "`trl.run._train`",
    "rollout.tools": "`Rollout.tool_protocol`",
    "rewards": "`trl.run._train`",
    "report_to": "`commands.tracked`",
    "rollout.keep_every": "`trl.run._Recorder`",
    "evaluation": "`trl.run._evaluate` and `trl.run._Recorder`",
}
ANOTHER_ENGINES = "verl"
REFUSED = "rollout.mismatch_level"  # see tests/training/test_recipe.py


def test_every_field_has_exactly_one_fate():
    for name in field_names():
        within = [name[:at] for at, letter in enumerate(name + ".") if letter == "."]
        fates = [
            name in CHANGES,
            any(part in AROUND for part in within),
            ANOTHER_ENGINES in within,
            name == REFUSED,
        ]
        assert sum(fates) == 1, name


@pytest.fixture
def effects(monkeypatch):
    monkeypatch.setattr(policy, "Sandbox", dict)

    def found(recipe):
        return (
            trl_config(recipe, "unused").to_dict(),
            dataclasses.asdict(episode_settings(recipe)),
            start_sandbox(recipe.sandbox),
        )

    return found


@pytest.mark.parametrize("field", CHANGES)
def test_a_field_has_an_effect(field, effects, registering):
    name, change = CHANGES[field]
    base = ["engine=trl"]
    before, after = (effects(load_recipe(name, [*base, *more])) for more in ([], [change]))
    different = [
        {key for key in one if key in other and one[key] != other[key]}
        for one, other in zip(before, after, strict=True)
    ]
    assert any(different)


def test_nothing_changed_changes_nothing(effects):
    assert effects(load_recipe("tiny")) == effects(load_recipe("tiny"))
