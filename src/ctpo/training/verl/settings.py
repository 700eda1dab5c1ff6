"""A recipe in verl's terms: the settings it decides.

`fields.FIELDS` says of every field of a recipe which of these settings it decides.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ctpo.engines.verl.names import loss_name
from ctpo.engines.verl.paths import PATHS
from ctpo.objective.named.specification import SHORTCUTS
from ctpo.training.recipe.recipe import ObjectiveSection, Recipe, Rollout, SandboxSection
from ctpo.training.verl.fields import refuse
from ctpo.training.verl.files import FIRST, Start, VerlFiles

# Short for what stands before most of verl's keys.
_ACTOR, _ROLLOUT, _MODEL = (f"actor_rollout_ref.{part}" for part in ("actor", "rollout", "model"))
_REFERENCE = "actor_rollout_ref.ref"
_LOSS = f"{_ACTOR}.policy_loss"
_FSDP = f"{_ACTOR}.fsdp_config"
_ENVIRONMENT = "ray_kwargs.ray_init.runtime_env.env_vars"

_REDUCTIONS = {
    "seq-mean-token-mean": "seq-mean-token-mean",
    "seq-mean-token-sum": "seq-mean-token-sum-norm",
    "token-mean": "token-mean",
}
_PRECISIONS = {"float32": "fp32", "bfloat16": "bf16"}


def settings(
    recipe: Recipe,
    files: VerlFiles,
    model: str,
    *,
    start: Start = FIRST,
    evaluate_first: bool = True,
) -> dict[str, Any]:
    """Return verl's settings as the recipe decides them.

    Args:
        recipe: What to do.
        files: Where to write.
        model: The policy's directory or Hub name.
        start: Which start of the run this is.
        evaluate_first: Whether to evaluate before the first batch.

    Raises:
        ValueError: The recipe asks for something that verl cannot do; names the field.
    """
    refuse(recipe)
    verl = recipe.verl
    assert verl is not None, "the recipe has been checked"
    rollout, optimization, evaluation = recipe.rollout, recipe.optimization, recipe.evaluation
    precision = _PRECISIONS[recipe.model.precision]
    mixed = {"param_dtype": precision, "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
    decided: dict[str, Any] = {
        **_objective(recipe.objective, rollout.max_response_tokens, files),
        **_episodes(rollout, recipe.sandbox),
        # The batch.
        "data.train_batch_size": rollout.prompts_per_batch,
        f"{_ROLLOUT}.n": rollout.responses_per_prompt,
        f"{_ACTOR}.ppo_mini_batch_size": rollout.prompts_per_batch
        // optimization.updates_per_batch,
        f"{_ACTOR}.ppo_micro_batch_size_per_gpu": optimization.micro_batch,
        f"{_ROLLOUT}.log_prob_micro_batch_size_per_gpu": optimization.micro_batch,
        f"{_REFERENCE}.log_prob_micro_batch_size_per_gpu": optimization.micro_batch,
        f"{_ACTOR}.use_dynamic_bsz": False,
        f"{_ACTOR}.ppo_epochs": 1,
        # Lengths.
        "data.max_prompt_length": verl.max_prompt_tokens,
        "data.max_response_length": rollout.max_response_tokens,
        f"{_ROLLOUT}.max_model_len": verl.max_prompt_tokens + rollout.max_response_tokens,
        # Prompts are measured before verl starts.
        "data.filter_overlong_prompts": False,
        "data.truncation": "error",
        # The model.
        f"{_MODEL}.path": model,
        f"{_MODEL}.tokenizer_path": _absolute(recipe.model.tokenizer),
        f"{_MODEL}.custom_chat_template": recipe.model.chat_template,
        f"{_MODEL}.enable_gradient_checkpointing": recipe.model.gradient_checkpointing,
        f"{_MODEL}.use_remove_padding": verl.packed,
        "data.apply_chat_template_kwargs": dict(recipe.model.chat_template_kwargs),
        # Weights that are trained stay float32; an update of 1e-6 is far below bfloat16's rounding.
        f"{_FSDP}.model_dtype": "fp32",
        f"{_FSDP}.mixed_precision": mixed,
        f"{_REFERENCE}.fsdp_config.model_dtype": "fp32",
        f"{_REFERENCE}.fsdp_config.mixed_precision": mixed,
        f"{_ROLLOUT}.dtype": recipe.model.precision,
        # Sampling.
        f"{_ROLLOUT}.temperature": rollout.temperature,
        f"{_ROLLOUT}.top_p": 1.0,
        f"{_ROLLOUT}.top_k": -1,
        f"{_ROLLOUT}.do_sample": True,
        f"{_ROLLOUT}.calculate_log_probs": True,
        "algorithm.rollout_correction.rollout_is": None
        if rollout.mismatch_cap is None
        else rollout.mismatch_level,
        "algorithm.rollout_correction.rollout_is_threshold": rollout.mismatch_cap or 2.0,
        "algorithm.rollout_correction.rollout_is_batch_normalize": False,
        "algorithm.rollout_correction.rollout_rs": None,
        "algorithm.rollout_correction.bypass_mode": False,
        # Updates.
        f"{_ACTOR}.optim.optimizer": "AdamW",
        f"{_ACTOR}.optim.lr": optimization.learning_rate,
        f"{_ACTOR}.optim.lr_scheduler_type": "constant",
        f"{_ACTOR}.optim.weight_decay": optimization.weight_decay,
        f"{_ACTOR}.optim.clip_grad": optimization.max_grad_norm,
        f"{_ACTOR}.optim.override_optimizer_config": {"eps": optimization.adam_epsilon},
        f"{_ACTOR}.entropy_coeff": optimization.entropy_coef,
        f"{_ACTOR}.use_kl_loss": optimization.kl_coef > 0,
        f"{_ACTOR}.kl_loss_coef": optimization.kl_coef,
        f"{_ACTOR}.kl_loss_type": "low_var_kl",
        "algorithm.use_kl_in_reward": False,
        "critic.enable": False,
        # Evaluations.
        f"{_ROLLOUT}.val_kwargs.n": evaluation.samples_per_problem,
        f"{_ROLLOUT}.val_kwargs.temperature": evaluation.temperature,
        f"{_ROLLOUT}.val_kwargs.top_p": 1.0,
        f"{_ROLLOUT}.val_kwargs.do_sample": True,
        "trainer.val_before_train": evaluate_first,
        # After the last batch verl evaluates too, unless this is negative.
        "trainer.test_freq": evaluation.every or optimization.batches,
        # The run.
        "data.train_files": [str(files.train)],
        "data.val_files": [str(files.held_out)],
        "data.shuffle": True,
        "data.seed": recipe.seed,
        f"{_ACTOR}.data_loader_seed": recipe.seed,
        f"{_FSDP}.seed": recipe.seed,
        f"{_ROLLOUT}.seed": recipe.seed,
        "trainer.project_name": "ctpo",
        "trainer.experiment_name": recipe.name,
        "trainer.total_training_steps": optimization.batches,
        # The steps decide; an epoch has at least one.
        "trainer.total_epochs": optimization.batches,
        "trainer.save_freq": optimization.checkpoint_every,
        "trainer.max_actor_ckpt_to_keep": optimization.keep_checkpoints,
        "trainer.default_local_dir": str(files.run / "checkpoints"),
        "trainer.resume_mode": "auto",
        # verl writes every step; `results` keeps every `rollout.keep_every`-th.
        "trainer.rollout_data_dir": str(files.rollouts) if rollout.keep_every else None,
        "trainer.validation_data_dir": str(files.validations),
        "trainer.logger": ["console", "file", *verl.loggers],
        # The machines.
        "trainer.nnodes": verl.nodes,
        "trainer.n_gpus_per_node": verl.gpus_per_node,
        f"{_ROLLOUT}.name": verl.rollout_engine,
        f"{_ROLLOUT}.tensor_model_parallel_size": verl.tensor_parallel,
        f"{_ROLLOUT}.gpu_memory_utilization": verl.gpu_memory_share,
        f"{_ACTOR}.strategy": verl.strategy,
        f"{_FSDP}.param_offload": verl.offload,
        f"{_FSDP}.optimizer_offload": verl.offload,
        f"{_REFERENCE}.fsdp_config.param_offload": verl.offload,
        f"{_ACTOR}.ulysses_sequence_parallel_size": verl.sequence_parallel,
        f"{_ROLLOUT}.agent.num_workers": verl.workers,
        "reward.num_workers": verl.workers,
        f"{_ENVIRONMENT}.VERL_FILE_LOGGER_PATH": str(files.metrics(start)),
        f"{_ENVIRONMENT}.VERL_USE_EXTERNAL_MODULES": external_modules(),
    }
    if not verl.packed:
        # verl's default is flash-attention, which only packing needs.
        decided[f"{_MODEL}.override_config"] = {"attn_implementation": "sdpa"}
    if recipe.threads is not None:
        decided[f"{_ENVIRONMENT}.OMP_NUM_THREADS"] = str(recipe.threads)
    return decided


def _absolute(place: str | None) -> str | None:
    """Ray's workers are elsewhere; a Hub name stays as it is."""
    return str(Path(place).resolve()) if place and Path(place).is_dir() else place


def external_modules() -> str:
    """Return what every worker is to import first: the user's own modules and our plug-in.

    Entry points load it too, but verl keeps quiet about one that fails; about these it raises.
    """
    own = [name for name in os.environ.get("VERL_USE_EXTERNAL_MODULES", "").split(",") if name]
    return ",".join(dict.fromkeys([*own, "ctpo.engines.verl.plugin"]))


def _objective(
    objective: ObjectiveSection, response_tokens: int, files: VerlFiles
) -> dict[str, Any]:
    spec = objective.spec
    changes = spec.changes()
    named = {name: changes.pop(name) for name in SHORTCUTS if name in changes}
    # Workers have imported nothing of the user's: what named the objective here is named there.
    reference = objective.import_ or (objective.preset if ":" in objective.preset else None)
    by_constant = objective.reduction_name == "seq-mean-token-sum"
    return {
        f"{_LOSS}.loss_mode": loss_name(spec.name),
        f"{_LOSS}.import_": reference,
        **{f"{_LOSS}.{name}": value for name, value in named.items()},
        f"{_LOSS}.parameters": changes,
        f"{_LOSS}.positions": str(files.run / "positions.parquet"),
        f"{_ACTOR}.loss_agg_mode": _REDUCTIONS[objective.reduction_name],
        f"{_ACTOR}.loss_scale_factor": response_tokens if by_constant else None,
        "algorithm.adv_estimator": "ctpo_group",
        "algorithm.norm_adv_by_std_in_grpo": objective.normalized,
    }


def _episodes(rollout: Rollout, sandbox: SandboxSection) -> dict[str, Any]:
    return {
        f"{_ROLLOUT}.agent.default_agent_loop": "ctpo",
        f"{_ROLLOUT}.agent.agent_loop_config_path": str(PATHS["agent_loop"]),
        # Of the agent loop, which reads it there.
        f"{_ROLLOUT}.custom": {
            "episodes": {
                "protocol": rollout.protocol,
                "instructions": "",  # they are in the problems already
                "max_calls": rollout.max_calls,
                "max_output_tokens": rollout.max_output_tokens,
                "max_output_chars": rollout.max_output_chars,
                "sandbox": {
                    "timeout": sandbox.timeout,
                    "memory_mb": sandbox.memory_mb,
                    "preload": list(sandbox.preload),
                    "allow_weak": sandbox.allow_weak,
                },
            }
        },
        "trainer.v1.sampler.sampler_kwargs": {"max_failure_share": sandbox.max_failure_share},
        "reward.custom_reward_function.path": "pkg://ctpo.engines.verl.reward",
        "reward.custom_reward_function.name": "compute_score",
    }
