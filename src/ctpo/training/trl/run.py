"""A recipe on the TRL engine."""

from __future__ import annotations

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
from transformers.trainer_utils import align_special_tokens

from ctpo.engines.trl import CTPOTrainer
from ctpo.engines.trl.episodes import EpisodeRollout
from ctpo.engines.trl.vllm_generator import TrlVllmGenerator
from ctpo.evaluation.rewards import Rewards
from ctpo.sandbox import Sandbox
from ctpo.tasks import Problem
from ctpo.tir import Generator
from ctpo.tir.weights import check_weights
from ctpo.training import checkpoints
from ctpo.training.job import Job
from ctpo.training.models import (
    frozen_in_bfloat16,
    give_float32_head,
    load_model,
    take_back_float32_head,
)
from ctpo.training.policy import episode_settings, measure, own_generator
from ctpo.training.recipe.model import Lora
from ctpo.training.trl.config import trl_config
from ctpo.training.trl.metrics import metrics_of
from ctpo.training.trl.transcripts import transcripts


def train(job: Job) -> None:
    """Train a recipe on TRL; see `Engine.train`."""
    frozen = frozen_in_bfloat16(job.recipe.model)
    with job.start_sandbox() as sandbox:
        path = job.policy_path(sandbox)
        model, tokenizer = load_model(path, torch.bfloat16 if frozen else torch.float32)
        _train(job, model, tokenizer, sandbox, frozen=frozen)


def _train(
    job: Job,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sandbox: Sandbox,
    *,
    frozen: bool,
) -> None:
    """Train, from the last checkpoint if there is one, and write the trained model."""
    recipe, directory, watch = job.recipe, job.directory, job.watch
    tied = model.config.tie_word_embeddings
    if frozen:
        give_float32_head(model)
    checkpoint = directory.last_checkpoint()
    done = 0 if checkpoint is None else checkpoints.step_of(checkpoint)
    config = trl_config(recipe, str(directory.checkpoints))
    directory.forget_after(done // config.steps_per_rollout)
    rewards = Rewards(recipe.rewards)
    rollout = EpisodeRollout(
        sandbox,
        episode_settings(recipe),
        seed=recipe.seed,
        generator=own_generator(recipe) or (None if recipe.vllm is None else TrlVllmGenerator),
        score=lambda answers, places: rewards(answers, [job.train[i] for i in places]),
    )
    trainer = CTPOTrainer(
        model=model,
        reward_funcs=[rollout.reward],
        args=config,
        train_dataset=_data_set(job.train),
        processing_class=tokenizer,
        rollout_func=rollout,
        on_rollout=rollout.scored,
        peft_config=_lora(recipe.model.lora),
    )
    trainer.remove_callback(PrinterCallback)

    def evaluate(name: str, batch: int) -> None:
        _evaluate(job, name, batch, rollout.generator(trainer), tokenizer, sandbox)

    trainer.add_callback(_Recorder(job, trainer, rollout, rewards, evaluate))
    if not directory.has_evaluation("start"):
        evaluate("start", 0)
    job.listener.phase("training", recipe.optimization.batches)
    job.listener.progress(done // config.steps_per_rollout)
    evaluated = watch.phases.get("evaluation", 0.0)
    try:
        with watch.time("updates"), job.termination.deferred():
            if checkpoint is not None and done >= config.max_steps:
                # Killed between the last step and the end: nothing is left to train.
                trainer._load_from_checkpoint(str(checkpoint))
                align_special_tokens(trainer.model, tokenizer)  # as training begins with
            else:
                trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    finally:
        # What was counted by its own name is not an update.
        evaluated = watch.phases.get("evaluation", 0.0) - evaluated
        watch.add("generation", rollout.times.generate)
        watch.add("tools", rollout.times.tools)
        watch.add("updates", -rollout.times.generate - rollout.times.tools - evaluated)
    evaluate("final", recipe.optimization.batches)
    trained = trainer.accelerator.unwrap_model(trainer.model)
    if recipe.model.lora is not None:
        trained = trained.merge_and_unload()
    if frozen:
        take_back_float32_head(trained, tied=tied)
    with directory.writing_model() as unfinished:
        trained.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)


def _evaluate(
    job: Job,
    name: str,
    batch: int,
    generator: Generator,
    tokenizer: PreTrainedTokenizerBase,
    sandbox: Sandbox,
) -> None:
    """Measure held-out accuracy, sampled and greedy, after `batch` batches; write it as `name`."""
    settings = job.recipe.evaluation
    with job.watch.time("evaluation"):
        sampled, greedy = measure(
            generator,
            tokenizer,
            sandbox,
            job.held_out,
            episode_settings(job.recipe),
            samples_per_problem=settings.samples_per_problem,
            temperature=settings.temperature,
            batch_size=settings.batch_size,
            seed=job.recipe.seed,
            listener=job.listener,
            reward=Rewards(job.recipe.rewards).first,
        )
    job.directory.add_evaluation(name, batch, sampled, greedy)


class _Recorder(TrainerCallback):
    """Writes each batch of rollouts to the run directory when its updates are done."""

    def __init__(
        self,
        job: Job,
        trainer: CTPOTrainer,
        rollout: EpisodeRollout,
        rewards: Rewards,
        evaluate: Callable[[str, int], None],
    ) -> None:
        self._recipe, self._directory, self._listener = job.recipe, job.directory, job.listener
        self._termination = job.termination
        self._trainer = trainer
        self._rollout, self._rewards = rollout, rewards
        self._problems = {problem.id: problem for problem in job.train}
        self._evaluate = evaluate

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: object,
    ) -> None:
        at_boundary = state.global_step % self._recipe.optimization.updates_per_batch == 0
        if self._termination.asked is not None and at_boundary:
            control.should_save = control.should_training_stop = True

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: object,
    ) -> None:
        check_weights(self._trainer.model)  # what cannot be gone on from is no checkpoint
        newest = self._directory.checkpoints / f"checkpoint-{state.global_step}"
        checkpoints.seal(newest, self._recipe.optimization.keep_checkpoints)

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
        metrics = {"batch": batch, "step": state.global_step} | metrics_of(logs, trajectories)
        metrics |= self._rewards.means()
        self._directory.add_metrics(metrics)
        self._directory.add_positions(self._trainer.positions, batch)
        keep = self._recipe.rollout.keep_every
        if keep and batch % keep == 0:
            self._directory.add_trajectories(trajectories, batch)
        every, batches = self._recipe.evaluation.every, self._recipe.optimization.batches
        if batch in (1, batches) or (every and batch % every == 0):
            self._directory.add_transcripts(self._transcripts(), batch)
        self._listener.progress(
            batch,
            reward=metrics["reward/mean"],
            clipped=sum(metrics[f"clip/{s}"] for s in ("high", "low", "dual")),
        )
        if every and batch % every == 0 and batch < batches:
            self._evaluate(f"batch-{batch:04d}", batch)
            self._listener.phase("training", batches)

    def _transcripts(self) -> list[dict[str, Any]]:
        tokenizer = self._trainer.processing_class
        return transcripts(
            self._trainer.followed,
            self._rollout.trajectories,
            self._problems,
            self._trainer.objective,
            lambda ids: tokenizer.decode(ids, clean_up_tokenization_spaces=False),
            self._recipe.optimization.updates_per_batch,
        )


def _data_set(problems: Sequence[Problem]) -> Dataset:
    return Dataset.from_list(
        [
            {
                "prompt": list(problem.messages),
                "answer": problem.answer,
                "id": problem.id,
                "source": problem.source,
                "index": index,
            }
            for index, problem in enumerate(problems)
        ]
    )


def _lora(lora: Lora | None) -> Any:  # noqa: ANN401 - peft is loaded only where it is used
    if lora is None:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
