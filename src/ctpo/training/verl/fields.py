"""What becomes of every field of a recipe on verl: a table, so that none is forgotten."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import get_args

from pydantic import BaseModel

from ctpo.objective.named.specification import SHORTCUTS
from ctpo.training.recipe.engines import Verl
from ctpo.training.recipe.model import Lora, Section, TinyModel, WarmStart
from ctpo.training.recipe.recipe import Data, Optimization, Recipe, Rollout

_ACTOR = "actor_rollout_ref.actor"
_ROLLOUT = "actor_rollout_ref.rollout"
_MODEL = "actor_rollout_ref.model"
_REFERENCE = "actor_rollout_ref.ref"
_LOSS = f"{_ACTOR}.policy_loss"
_FSDP = f"{_ACTOR}.fsdp_config"
_EPISODES = f"{_ROLLOUT}.custom.episodes"
_ENVIRONMENT = "ray_kwargs.ray_init.runtime_env.env_vars"


@dataclass(frozen=True)
class Mapped:
    """The field decides these settings of verl's."""

    keys: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(f"`{key}`" for key in self.keys)


@dataclass(frozen=True)
class Ours:
    """`ctpo train` does itself what the field says, before verl starts or while it runs."""

    what: str

    def __str__(self) -> str:
        return f"by `ctpo`: {self.what}"


@dataclass(frozen=True)
class Irrelevant:
    """The field says nothing about a run on verl."""

    why: str

    def __str__(self) -> str:
        return f"without effect: {self.why}"


@dataclass(frozen=True)
class Refused:
    """verl cannot do what the field says, unless it says `only`."""

    only: object
    why: str

    def __str__(self) -> str:
        right = "left out" if self.only is None else f"`{self.only}`"
        return f"must be {right}: {self.why}"


Fate = Mapped | Ours | Irrelevant | Refused


def _mapped(*keys: str) -> Mapped:
    return Mapped(keys)


_WARM_START = Ours("the warm start, whose model is given to verl")
_PROBLEMS = Ours("the problems, written in verl's schema")
_NO_LORA = Refused(
    None,
    "verl's merger leaves adapters out of the model it writes, which would be the untrained one",
)
_TRL = Irrelevant("TRL's; verl has `[verl]`")

FIELDS: Mapping[str, Fate] = MappingProxyType(
    {
        "name": _mapped("trainer.experiment_name"),
        "seed": _mapped(
            "data.seed", f"{_ACTOR}.data_loader_seed", f"{_FSDP}.seed", f"{_ROLLOUT}.seed"
        ),
        "threads": _mapped(f"{_ENVIRONMENT}.OMP_NUM_THREADS"),
        "engine": Ours("the choice of verl"),
        "rewards": Refused(
            {"grade": 1.0},
            "verl calls rewards in processes of its own, with a text and no trajectory; there, "
            "reward.custom_reward_function in a configuration of verl's own names a function",
        ),
        "report_to": Ours("the run directory's metrics and figures, as they are written"),
        "model.path": _mapped(f"{_MODEL}.path"),
        **{f"model.tiny.{name}": _WARM_START for name in TinyModel.model_fields},
        **{f"model.lora.{name}": _NO_LORA for name in Lora.model_fields},
        "model.precision": _mapped(
            f"{_FSDP}.mixed_precision.param_dtype",
            f"{_REFERENCE}.fsdp_config.mixed_precision.param_dtype",
            f"{_ROLLOUT}.dtype",
        ),
        "model.gradient_checkpointing": _mapped(f"{_MODEL}.enable_gradient_checkpointing"),
        "model.chat_template_kwargs": _mapped("data.apply_chat_template_kwargs"),
        "model.tokenizer": _mapped(f"{_MODEL}.tokenizer_path"),
        "model.chat_template": _mapped(f"{_MODEL}.custom_chat_template"),
        **{f"warm_start.{name}": _WARM_START for name in WarmStart.model_fields},
        **{f"data.{name}": _PROBLEMS for name in Data.model_fields},
        "objective.preset": _mapped(f"{_LOSS}.loss_mode"),
        "objective.import": _mapped(f"{_LOSS}.import_", f"{_LOSS}.loss_mode"),
        "objective.reduction": _mapped(f"{_ACTOR}.loss_agg_mode", f"{_ACTOR}.loss_scale_factor"),
        "objective.advantages": _mapped("algorithm.norm_adv_by_std_in_grpo"),
        **{f"objective.{name}": _mapped(f"{_LOSS}.{name}") for name in (*SHORTCUTS, "parameters")},
        "rollout.prompts_per_batch": _mapped(
            "data.train_batch_size", f"{_ACTOR}.ppo_mini_batch_size"
        ),
        "rollout.responses_per_prompt": _mapped(f"{_ROLLOUT}.n"),
        "rollout.temperature": _mapped(f"{_ROLLOUT}.temperature"),
        "rollout.max_response_tokens": _mapped(
            "data.max_response_length", f"{_ROLLOUT}.max_model_len"
        ),
        "rollout.protocol": _mapped(f"{_EPISODES}.protocol"),
        "rollout.tools": Refused(
            [], "our agent loop runs Python only; verl's own `tool_agent` loop takes other tools"
        ),
        "rollout.generator": Refused(None, "verl generates on servers of its own"),
        "rollout.max_calls": _mapped(f"{_EPISODES}.max_calls"),
        "rollout.max_output_chars": _mapped(f"{_EPISODES}.max_output_chars"),
        "rollout.max_output_tokens": _mapped(
            f"{_EPISODES}.max_output_tokens", f"{_EPISODES}.max_output_chars"
        ),
        "rollout.keep_every": _mapped("trainer.rollout_data_dir"),
        "rollout.mismatch_cap": _mapped(
            "algorithm.rollout_correction.rollout_is",
            "algorithm.rollout_correction.rollout_is_threshold",
        ),
        "rollout.mismatch_level": _mapped("algorithm.rollout_correction.rollout_is"),
        **{f"vllm.{name}": _TRL for name in ("gpu_memory_share", "max_context_tokens", "sleep")},
        "verl.nodes": _mapped("trainer.nnodes"),
        "verl.gpus_per_node": _mapped("trainer.n_gpus_per_node"),
        "verl.rollout_engine": _mapped(f"{_ROLLOUT}.name"),
        "verl.tensor_parallel": _mapped(f"{_ROLLOUT}.tensor_model_parallel_size"),
        "verl.gpu_memory_share": _mapped(f"{_ROLLOUT}.gpu_memory_utilization"),
        "verl.max_prompt_tokens": _mapped("data.max_prompt_length", f"{_ROLLOUT}.max_model_len"),
        "verl.strategy": _mapped(f"{_ACTOR}.strategy"),
        "verl.offload": _mapped(
            f"{_FSDP}.param_offload",
            f"{_FSDP}.optimizer_offload",
            f"{_REFERENCE}.fsdp_config.param_offload",
        ),
        "verl.packed": _mapped(f"{_MODEL}.use_remove_padding", f"{_MODEL}.override_config"),
        "verl.sequence_parallel": _mapped(f"{_ACTOR}.ulysses_sequence_parallel_size"),
        "verl.workers": _mapped(f"{_ROLLOUT}.agent.num_workers", "reward.num_workers"),
        "verl.loggers": _mapped("trainer.logger"),
        "verl.overrides": Ours("whatever they name"),
        "optimization.batches": _mapped("trainer.total_training_steps", "trainer.total_epochs"),
        "optimization.updates_per_batch": _mapped(f"{_ACTOR}.ppo_mini_batch_size"),
        "optimization.micro_batch": _mapped(
            f"{_ACTOR}.ppo_micro_batch_size_per_gpu",
            f"{_ROLLOUT}.log_prob_micro_batch_size_per_gpu",
            f"{_REFERENCE}.log_prob_micro_batch_size_per_gpu",
        ),
        "optimization.learning_rate": _mapped(f"{_ACTOR}.optim.lr"),
        "optimization.schedule": Refused(
            "constant", "verl decays along a cosine or not at all, and moves once per batch"
        ),
        "optimization.warmup_fraction": Refused(
            0.0, "verl moves its schedule once per batch and spends the whole first batch at rate 0"
        ),
        "optimization.max_grad_norm": _mapped(f"{_ACTOR}.optim.clip_grad"),
        "optimization.weight_decay": _mapped(f"{_ACTOR}.optim.weight_decay"),
        "optimization.adam_epsilon": _mapped(f"{_ACTOR}.optim.override_optimizer_config.eps"),
        "optimization.kl_coef": _mapped(f"{_ACTOR}.use_kl_loss", f"{_ACTOR}.kl_loss_coef"),
        "optimization.entropy_coef": _mapped(f"{_ACTOR}.entropy_coeff"),
        "optimization.keep_checkpoints": _mapped("trainer.max_actor_ckpt_to_keep"),
        "optimization.checkpoint_every": _mapped("trainer.save_freq"),
        "sandbox.timeout": _mapped(f"{_EPISODES}.sandbox.timeout"),
        "sandbox.memory_mb": _mapped(f"{_EPISODES}.sandbox.memory_mb"),
        "sandbox.preload": _mapped(f"{_EPISODES}.sandbox.preload"),
        "sandbox.allow_weak": _mapped(f"{_EPISODES}.sandbox.allow_weak"),
        "sandbox.max_failure_share": _mapped("trainer.v1.sampler.sampler_kwargs.max_failure_share"),
        "evaluation.samples_per_problem": _mapped(f"{_ROLLOUT}.val_kwargs.n"),
        "evaluation.temperature": _mapped(f"{_ROLLOUT}.val_kwargs.temperature"),
        "evaluation.every": _mapped("trainer.test_freq"),
        "evaluation.batch_size": Irrelevant("verl's servers take all episodes at once"),
    }
)
"""The fate of every field, by its dotted name."""


def field_names(section: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all fields that hold a value."""
    for name, field in section.model_fields.items():
        for option in (field.annotation, *get_args(field.annotation)):
            if isinstance(option, type) and issubclass(option, Section):
                yield from field_names(option, f"{prefix}{name}.")
                break
        else:
            yield prefix + (field.alias or name)


def value_of(section: Section, name: str) -> object:
    """Return a field's value by its dotted name; None where its section is left out."""
    value: object = section
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def refuse(recipe: Recipe) -> None:
    """Raise if the recipe asks for something that verl cannot do.

    Raises:
        ValueError: Names the field, its value and what would be right.
    """
    for name, fate in FIELDS.items():
        value = value_of(recipe, name)
        if isinstance(fate, Refused) and value != fate.only:
            right = "left out" if fate.only is None else repr(fate.only)
            raise ValueError(f"{name} is {value!r}; on verl it must be {right}: {fate.why}")
    verl = recipe.verl
    assert verl is not None, "the engine's section is there"
    _refuse_uneven_batches(recipe.rollout, recipe.optimization, verl)
    if verl.sequence_parallel > 1 and not verl.packed:
        raise ValueError(
            f"verl.sequence_parallel is {verl.sequence_parallel}; it needs verl.packed = true"
        )


def _refuse_uneven_batches(rollout: Rollout, optimization: Optimization, verl: Verl) -> None:
    prompts, updates = rollout.prompts_per_batch, optimization.updates_per_batch
    if prompts % updates:
        raise ValueError(
            f"optimization.updates_per_batch is {updates}; on verl it must divide "
            f"rollout.prompts_per_batch, {prompts}: an update takes whole prompts"
        )
    gpus = verl.nodes * verl.gpus_per_node
    for name, parallel in (
        ("tensor_parallel", verl.tensor_parallel),
        ("sequence_parallel", verl.sequence_parallel),
    ):
        if gpus % parallel:
            raise ValueError(f"verl.{name} is {parallel}; it must divide the {gpus} GPUs")
    replicas = gpus // verl.sequence_parallel
    responses = prompts // updates * rollout.responses_per_prompt
    if responses % replicas:
        raise ValueError(
            f"an update takes {responses} responses, which {replicas} GPUs cannot share evenly; "
            "change optimization.updates_per_batch, rollout.responses_per_prompt or the GPUs of "
            "[verl]"
        )
    if responses // replicas % optimization.micro_batch:
        raise ValueError(
            f"optimization.micro_batch is {optimization.micro_batch}; on verl it must divide the "
            f"{responses // replicas} responses of an update on each of {replicas} GPUs"
        )


def table() -> str:
    """Return the fates of all fields as a Markdown table, for the documentation."""
    lines = ["| field of the recipe | on verl |", "|---|---|"]
    lines += [f"| `{name}` | {fate} |" for name, fate in FIELDS.items()]
    return "\n".join(lines) + "\n"
