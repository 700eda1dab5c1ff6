"""Every field of a recipe has an effect on TRL, or is another engine's."""

import dataclasses

import pytest

from ctpo.training import policy
from ctpo.training.policy import episode_settings, start_sandbox
from ctpo.training.recipe.loading import load_recipe
from ctpo.training.trl.config import trl_config
from ctpo.training.verl.fields import field_names
from tests.training.changes import ON_BOTH

STARTS = {"tiny": "tiny", "grpo": "qwen3-4b-grpo", "large": "qwen3-4b-1gpu"}

# A change of each field that reaches TRL's configuration, the episodes or the sandbox.
CHANGES = {
    **ON_BOTH,
    "objective.reduction": ("tiny", "objective.reduction=token-mean"),
    "rollout.prompts_per_batch": ("tiny", "rollout.prompts_per_batch=32"),
    "rollout.responses_per_prompt": ("tiny", "rollout.responses_per_prompt=16"),
    "rollout.mismatch_cap": ("large", "rollout.mismatch_cap=3"),
    "vllm.gpu_memory_share": ("large", "vllm.gpu_memory_share=0.5"),
    "vllm.max_context_tokens": ("large", "vllm.max_context_tokens=9000"),
    "vllm.sleep": ("large", "vllm.sleep=false"),
    "optimization.schedule": ("tiny", "optimization.schedule=constant"),
    "optimization.warmup_fraction": ("tiny", "optimization.warmup_fraction=0.5"),
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
    start, change = CHANGES[field]
    recipe, base = STARTS[start], ["engine=trl"]
    before, after = (effects(load_recipe(recipe, [*base, *more])) for more in ([], [change]))
    different = [
        {key for key in one if key in other and one[key] != other[key]}
        for one, other in zip(before, after, strict=True)
    ]
    assert any(different)


def test_nothing_changed_changes_nothing(effects):
    assert effects(load_recipe("tiny")) == effects(load_recipe("tiny"))
