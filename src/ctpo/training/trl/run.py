"""A recipe on the TRL engine."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from ctpo.engines.trl import CTPOConfig, CTPOTrainer
from ctpo.engines.trl.episodes import EpisodeRollout
from ctpo.engines.trl.vllm_generator import TrlVllmGenerator
from ctpo.sandbox import Sandbox
from ctpo.tasks import Problem
from ctpo.tir import Generator, Trajectory
from ctpo.training.listening import Listener, Stopwatch
from ctpo.training.models import (
    frozen_in_bfloat16,
    give_float32_head,
    take_back_float32_head,
)
from ctpo.training.policy import episode_settings
from ctpo.training.recipe.recipe import Recipe
from ctpo.training.run_directory import RunDirectory

# TRL's names and ours: means over the batch of rollouts or over its updates, but for the gradient
# norm and the learning rate, which are those of its last update.
_FROM_TRL = {
    "reward": "reward/mean",
    "reward_std": "reward/std",
    "frac_reward_zero_std": "reward/zero_std_groups",
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "entropy": "entropy",
}

_LOSS_TYPES = {
    "seq-mean-token-mean": "grpo",
    "seq-mean-token-sum": "dr_grpo",
    "token-mean": "dapo",
}


def train_with_trl(
    recipe: Recipe,
    directory: RunDirectory,
    train: Sequence[Problem],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sandbox: Sandbox,
    evaluate: Callable[[str, int, Generator], None],
    listener: Listener,
    watch: Stopwatch,
) -> None:
    """Train, from the last checkpoint if there is one, and write the trained model.

    Args:
        recipe: What to do.
        directory: Receives metrics, statistics, trajectories and checkpoints.
        train: The problems.
        model: The policy.
        tokenizer: Its tokenizer.
        sandbox: A started sandbox.
        evaluate: Called with a name, the batch and a generator where there is to be an evaluation.
        listener: Hears how it goes.
        watch: Counts the time.
    """
    frozen = frozen_in_bfloat16(recipe)
    tied = model.config.tie_word_embeddings
    if frozen:
        give_float32_head(model)
    checkpoint = directory.last_checkpoint()
    done = 0 if checkpoint is None else int(checkpoint.name.removeprefix("checkpoint-"))
    config = trl_config(recipe, str(directory.checkpoints))
    directory.forget_after(done // config.steps_per_rollout)
    rollout = EpisodeRollout(
        sandbox,
        episode_settings(recipe),
        seed=recipe.seed,
        generator=None if recipe.vllm is None else TrlVllmGenerator,
    )
    trainer = CTPOTrainer(
        model=model,
        reward_funcs=[rollout.reward],
        args=config,
        train_dataset=_data_set(train),
        processing_class=tokenizer,
        rollout_func=rollout,
        on_rollout=rollout.scored,
        peft_config=_lora(recipe),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_Recorder(recipe, directory, trainer, rollout, evaluate, listener))
    if not directory.has_evaluation("start"):
        evaluate("start", 0, rollout.generator(trainer))
    listener.phase("training", recipe.optimization.batches)
    listener.progress(done // config.steps_per_rollout)
    evaluated = watch.phases.get("evaluation", 0.0)
    try:
        with watch.time("updates"):
            if checkpoint is not None and done >= config.max_steps:
                # Killed between the last step and the end: nothing is left to train.
                trainer._load_from_checkpoint(str(checkpoint))
            else:
                trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    finally:
        # What was counted by its own name is not an update.
        evaluated = watch.phases.get("evaluation", 0.0) - evaluated
        watch.add("generation", rollout.times.generate)
        watch.add("tools", rollout.times.tools)
        watch.add("updates", -rollout.times.generate - rollout.times.tools - evaluated)
    evaluate("final", recipe.optimization.batches, rollout.generator(trainer))
    trained = trainer.accelerator.unwrap_model(trainer.model)
    if recipe.model.lora is not None:
        trained = trained.merge_and_unload()
    if frozen:
        take_back_float32_head(trained, tied=tied)
    trained.save_pretrained(directory.model)
    tokenizer.save_pretrained(directory.model)


def trl_config(recipe: Recipe, output_dir: str) -> CTPOConfig:
    """Translate a recipe into TRL's terms.

    Args:
        recipe: What to do.
        output_dir: Where TRL writes its checkpoints.
    """
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
        **_vllm(recipe),
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
        logging_steps=optimization.updates_per_batch,
        save_strategy="steps",
        save_steps=optimization.checkpoint_every * optimization.updates_per_batch,
        save_total_limit=optimization.keep_checkpoints,
        bf16=bfloat16,
        use_cpu=not torch.cuda.is_available(),
        cast_lm_head_to_fp32=bfloat16,
        gradient_checkpointing=recipe.model.gradient_checkpointing,
        chat_template_kwargs=dict(recipe.model.chat_template_kwargs),
        dataloader_pin_memory=False,
        report_to="none",
        disable_tqdm=True,
    )


class _Recorder(TrainerCallback):
    """Writes each batch of rollouts to the run directory when its updates are done."""

    def __init__(
        self,
        recipe: Recipe,
        directory: RunDirectory,
        trainer: CTPOTrainer,
        rollout: EpisodeRollout,
        evaluate: Callable[[str, int, Generator], None],
        listener: Listener,
    ) -> None:
        self._recipe = recipe
        self._directory = directory
        self._trainer = trainer
        self._rollout = rollout
        self._evaluate = evaluate
        self._listener = listener

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        if logs is None or "reward" not in logs or self._trainer.positions is None:
            return  # the summary at the end of training
        batch = state.global_step // self._recipe.optimization.updates_per_batch
        trajectories = self._rollout.trajectories
        metrics = {"batch": batch, "step": state.global_step} | _metrics(logs, trajectories)
        self._directory.add_metrics(metrics)
        self._directory.add_positions(self._trainer.positions, batch)
        keep = self._recipe.rollout.keep_every
        if keep and batch % keep == 0:
            self._directory.add_trajectories(trajectories, batch)
        self._listener.progress(
            batch, reward=metrics["reward/mean"], clipped=sum(metrics[f"clip/{s}"] for s in _SIDES)
        )
        every = self._recipe.evaluation.every
        if every and batch % every == 0 and batch < self._recipe.optimization.batches:
            generator = self._rollout.generator(self._trainer)
            self._evaluate(f"batch-{batch:04d}", batch, generator)
            self._listener.phase("training", self._recipe.optimization.batches)


_SIDES = ("high", "low", "dual")


def _metrics(logs: dict[str, float], trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """Return one batch's metrics under our names. Times are not among them: they do not repeat."""
    metrics: dict[str, Any] = {ours: logs[theirs] for theirs, ours in _FROM_TRL.items()}
    metrics |= {
        name.removeprefix("ctpo/"): value
        for name, value in logs.items()
        if name.startswith("ctpo/")
    }
    # What TRL measured of the generator against the trainer, where that is not one model.
    metrics |= {
        name.replace("sampling/", "sampler/", 1): value
        for name, value in logs.items()
        if name.startswith("sampling/")
    }
    count = len(trajectories)
    graded = [t.reward for t in trajectories if t.reward is not None]
    if len(graded) < count:
        # TRL leaves what could not be graded out of the advantages, but counts it as 0 here.
        metrics["reward/mean"] = statistics.fmean(graded) if graded else None
        metrics["reward/std"] = statistics.stdev(graded) if len(graded) > 1 else None
    results = [result for t in trajectories for result in t.tool_results]
    failed = sum(result.status == "sandbox-failure" for result in results)
    wrong = sum(result.status not in ("success", "sandbox-failure") for result in results)
    gaps = [
        abs(old - sampled)
        for t in trajectories
        if t.old_logprobs is not None
        for old, sampled, policy in zip(t.old_logprobs, t.sampler_logprobs, t.mask, strict=True)
        if policy
    ]
    return metrics | {
        "reward/unknown": sum(t.reward is None for t in trajectories) / count,
        "response/length": sum(sum(t.mask) for t in trajectories) / count,
        "response/answered": sum(t.finish_reason == "answered" for t in trajectories) / count,
        "tool/calls_per_response": len(results) / count,
        "tool/error_rate": wrong / len(results) if results else None,
        "tool/failure_rate": failed / len(results) if results else None,
        "sampler/logprob_gap_max": max(gaps, default=None),
    }


def _data_set(problems: Sequence[Problem]) -> Dataset:
    return Dataset.from_list(
        [
            {
                "prompt": list(problem.messages),
                "answer": problem.answer,
                "id": problem.id,
                "source": problem.source,
            }
            for problem in problems
        ]
    )


def _lora(recipe: Recipe) -> Any:  # noqa: ANN401 - peft is loaded only where it is used
    if recipe.model.lora is None:
        return None
    from peft import LoraConfig

    lora = recipe.model.lora
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )


def _vllm(recipe: Recipe) -> dict[str, Any]:
    """Return TRL's settings for generation with vLLM; none where the recipe has none.

    Raises:
        ValueError: The recipe asks for a weight against the generator that there is none of here.
    """
    cap = recipe.rollout.mismatch_cap
    if recipe.vllm is None:
        if cap is not None:
            raise ValueError(
                f"rollout.mismatch_cap is {cap}, which has no effect on TRL without a [vllm] "
                "section: the training model itself generates"
            )
        return {}
    if recipe.rollout.mismatch_level != "sequence":
        raise ValueError(
            f"rollout.mismatch_level is {recipe.rollout.mismatch_level!r}; TRL has no such weight, "
            "only that of the whole sequence; take engine verl"
        )
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": recipe.vllm.gpu_memory_share,
        "vllm_enable_sleep_mode": recipe.vllm.sleep,
        "vllm_max_model_length": recipe.vllm.max_context_tokens,
        "vllm_importance_sampling_correction": cap is not None,
        # The paper's weight against the generator; TRL's own default drops whole sequences.
        "vllm_importance_sampling_mode": "sequence_truncate",
        **({} if cap is None else {"vllm_importance_sampling_clip_max": cap}),
        # A hint that saves tokens: where a turn ends is decided by the session.
        "generation_kwargs": {"stop": ["```\n"], "include_stop_str_in_output": True},
    }
