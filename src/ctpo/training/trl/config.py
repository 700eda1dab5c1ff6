"""A recipe in TRL's terms."""

from __future__ import annotations

from typing import Any

import torch

from ctpo.engines.trl import CTPOConfig
from ctpo.training.recipe.engines import Vllm
from ctpo.training.recipe.recipe import Recipe, Rollout

_LOSS_TYPES = {
    "seq-mean-token-mean": "grpo",
    "seq-mean-token-sum": "dr_grpo",
    "token-mean": "dapo",
}


def trl_config(recipe: Recipe, output_dir: str) -> CTPOConfig:
    """Translate a recipe into TRL's terms."""
    optimization, rollout = recipe.optimization, recipe.rollout
    steps = optimization.batches * optimization.updates_per_batch
    spec = recipe.objective.spec
    bfloat16 = recipe.model.precision == "bfloat16"
    return CTPOConfig(
        output_dir=output_dir,
        objective=spec.name,
        objective_parameters=spec.changes() or None,
        loss_type=_LOSS_TYPES[recipe.objective.reduction_name],
        scale_rewards="group" if recipe.objective.normalized else "none",
        **_vllm(rollout, recipe.vllm),
        seed=recipe.seed,
        max_steps=steps,
        per_device_train_batch_size=optimization.micro_batch,
        gradient_accumulation_steps=recipe.accumulation,
        steps_per_generation=recipe.responses_per_batch // optimization.micro_batch,
        num_generations=rollout.responses_per_prompt,
        max_completion_length=rollout.max_response_tokens,
        temperature=rollout.temperature,
        learning_rate=optimization.learning_rate,
        lr_scheduler_type="constant_with_warmup"
        if optimization.schedule == "constant"
        else optimization.schedule,
        warmup_steps=round(optimization.warmup_fraction * steps),
        weight_decay=optimization.weight_decay,
        max_grad_norm=optimization.max_grad_norm,
        adam_epsilon=optimization.adam_epsilon,
        beta=optimization.kl_coef,
        use_bias_correction_kl=False,  # as on verl
        entropy_coef=optimization.entropy_coef,
        logging_steps=optimization.updates_per_batch,
        save_strategy="steps",
        save_steps=optimization.checkpoint_every * optimization.updates_per_batch,
        bf16=bfloat16,
        use_cpu=not torch.cuda.is_available(),
        cast_lm_head_to_fp32=bfloat16,
        gradient_checkpointing=recipe.model.gradient_checkpointing,
        chat_template_kwargs=dict(recipe.model.chat_template_kwargs),
        dataloader_pin_memory=False,
        report_to="none",
        disable_tqdm=True,
    )


def _vllm(rollout: Rollout, vllm: Vllm | None) -> dict[str, Any]:
    """Return TRL's settings for generation with vLLM; none where the recipe has none.

    Raises:
        ValueError: The recipe asks for a weight against the generator that there is none of here.
    """
    cap = rollout.mismatch_cap
    if vllm is None:
        if cap is not None:
            raise ValueError(
                f"rollout.mismatch_cap is {cap}, which has no effect on TRL without a [vllm] "
                "section: the training model itself generates"
            )
        return {}
    if rollout.mismatch_level != "sequence":
        raise ValueError(
            f"rollout.mismatch_level is {rollout.mismatch_level!r}; TRL has no such weight, "
            "only that of the whole sequence; take engine verl"
        )
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": vllm.gpu_memory_share,
        "vllm_enable_sleep_mode": vllm.sleep,
        "vllm_max_model_length": vllm.max_context_tokens,
        "vllm_importance_sampling_correction": cap is not None,
        # The paper's weight against the generator; TRL's own default drops whole sequences.
        "vllm_importance_sampling_mode": "sequence_truncate",
        **({} if cap is None else {"vllm_importance_sampling_clip_max": cap}),
        # A hint that saves tokens: where a turn ends is decided by the session.
        "generation_kwargs": {"stop": ["```\n"], "include_stop_str_in_output": True},
    }
