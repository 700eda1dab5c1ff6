"""`CTPOTrainer`: TRL's GRPO trainer with the CTPO objective."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import PreTrainedModel
from trl import GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing
from trl.trainer.grpo_trainer import RewardFunc
from trl.trainer.utils import get_config_model_id

from ctpo.engines.trl import reference, rollouts
from ctpo.engines.trl.beside import in_trls_terms, leave_clipping_to_the_objective
from ctpo.engines.trl.config import CTPOConfig, objective_of
from ctpo.engines.trl.micro_batches import IMAGE_KEYS, Batch, cut, policy_mask
from ctpo.engines.trl.mismatch import mismatch_of
from ctpo.engines.trl.model_calls import (
    plain_sampling,
    positions_of_tokens,
    warn_of_dropped_fields,
)
from ctpo.engines.trl.paper import PAPER
from ctpo.engines.trl.patched import refuse_patched_trainer
from ctpo.engines.trl.sampler import EpochSampler
from ctpo.engines.trl.scores import RolloutScores, scores_of
from ctpo.grading.rewards import check_reward
from ctpo.objective import Objective, PositionStatistics
from ctpo.objective.inputs import check_finite
from ctpo.objective.layout import Padded
from ctpo.objective.statistics.steps import on_policy_metrics, over_ranks

# Log-probabilities [B, T], entropies [B, T] and the routers' loss.
Forward = tuple[Tensor, Tensor | None, Tensor | None]


class CTPOTrainer(GRPOTrainer):
    """`GRPOTrainer` whose loss is the objective of its `CTPOConfig`.

    Besides `_compute_loss` it changes what the loss needs to be right: sampling follows the plain
    distribution, whatever the model's generation configuration says; old log-probabilities are
    computed on the very micro-batches, cut to their own longest row, that the loss sees; the order
    of prompts is a function of seed and epoch, and a checkpoint holds the rollouts it is in the
    middle of, so that a resumed run continues exactly; ratios and clip rates are collected by
    position.

    Args:
        model: As `GRPOTrainer`.
        reward_funcs: As `GRPOTrainer`.
        args: The configuration; left out, a default one.
        *others: As `GRPOTrainer`, in its order.
        objective: The objective, if it is not the one that `args` describes.
        on_rollout: Called after each batch of rollouts has been scored.
        **kwargs: As `GRPOTrainer`.

    Attributes:
        positions: Statistics by position since the last log, or None before the first. Callbacks
            read them in `on_log`.
        followed: Of each micro-batch of the rollouts in hand, as they are used, the first response:
            its row, log-probabilities [T] in the loss and old ones. On the device.

    Raises:
        TypeError: `args` is not a `CTPOConfig`, or `objective` no `Objective`.
        ValueError: `args` changes an objective that is not used, the objective has a mismatch
            weight, which is TRL's to compute, or its weight does not correct the KL term.
        RuntimeError: TRL's loss has been replaced, as Unsloth does: ours would never be called.
    """

    _tag_names = ["trl", "ctpo"]
    _name = "CTPO"
    _paper = PAPER

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        reward_funcs: RewardFunc | list[RewardFunc] | None = None,
        args: CTPOConfig | None = None,
        *others: Any,  # noqa: ANN401 - as TRL's own
        objective: Objective | None = None,
        on_rollout: Callable[[RolloutScores], None] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        refuse_patched_trainer()
        if args is None:
            name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = CTPOConfig(f"{name.split('/')[-1]}-CTPO")
        if not isinstance(args, CTPOConfig):
            raise TypeError(f"args is {type(args).__name__}; CTPOTrainer needs a CTPOConfig")
        self.objective = objective_of(args, objective)
        self.mismatch = mismatch_of(args)
        self.positions: PositionStatistics | None = None
        self.followed: list[tuple[Tensor, Tensor, Tensor]] = []
        self._before_updates: PositionStatistics | None = None
        self._entropy: Tensor | None = None
        self._on_rollout = on_rollout
        self._old_logprobs_wait = False
        self._forward_done: Forward | None = None
        self._buffered_inputs: list[Batch] | None = None
        self._collected_at = 0  # optimizer steps done when the rollouts in hand were collected
        super().__init__(model, reward_funcs, args, *others, **kwargs)
        leave_clipping_to_the_objective(self)
        if not self.use_vllm:
            warn_of_dropped_fields(
                self.accelerator.unwrap_model(self.model), self.generation_kwargs
            )

    def _get_train_sampler(self, dataset: Any = None) -> Sampler:  # noqa: ANN401
        return EpochSampler(
            len(self.train_dataset if dataset is None else dataset),
            prompts=self.args.generation_batch_size // self.num_generations,
            responses=self.num_generations,
            repeats=self.num_iterations * self.args.steps_per_generation,
            shuffle=self.shuffle_dataset,
            seed=self.args.seed,
        )

    def _generate_and_score_completions(self, inputs: list[Batch]) -> Batch:
        # TRL computes old log-probabilities here, over the whole batch at its full width. They are
        # computed again below, where shapes are final; unless something else needs them already,
        # the first computation is skipped.
        self._old_logprobs_wait = not (self.use_vllm and self.vllm_importance_sampling_correction)
        try:
            with plain_sampling(self.model):
                batch = super()._generate_and_score_completions(inputs)
        finally:
            self._old_logprobs_wait = False
        if self.model.training:
            self._collected_at = self.state.global_step
        batch["row"] = torch.arange(len(batch["advantages"]), device=batch["advantages"].device)
        return batch

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        rewards: Tensor = super()._calculate_rewards(*args, **kwargs)
        # NaN is an answer that nobody could grade; infinity would become every weight's.
        for row, function in rewards.isinf().nonzero()[:1].tolist():
            name, value = self.reward_func_names[function], rewards[row, function].item()
            check_reward(value, name, f"row {row} of the batch")
        return rewards

    def _get_per_token_logps_and_entropies(
        self,
        model: nn.Module,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        *args: Any,  # noqa: ANN401
        **kwargs: Any,  # noqa: ANN401
    ) -> Forward:
        if self._forward_done is not None:
            return self._forward_done
        if self._old_logprobs_wait:
            self._old_logprobs_wait = False  # what comes after them is the reference's
            return torch.zeros(len(input_ids), logits_to_keep, device=input_ids.device), None, None
        with positions_of_tokens(model, self.accelerator.unwrap_model(model)):
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )

    @property
    def _plan(self) -> rollouts.Plan:
        args = self.args
        return rollouts.Plan(
            args.steps_per_generation,
            self.num_iterations,
            args.gradient_accumulation_steps,
            self.accelerator.num_processes,
        )

    def _save_rng_state(self, output_dir: str) -> None:
        # Of a checkpoint, what every process writes for itself.
        super()._save_rng_state(output_dir)
        batches = self._buffered_inputs if self._step % self._plan.period else None
        in_hand = rollouts.Rollouts(self._step, self._collected_at, batches)
        rollouts.save(output_dir, self.accelerator.process_index, self._plan, in_hand)
        reference.save(output_dir, self)

    def train(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Train as TRL does; what an earlier call had in hand is not used again."""
        self._step, self._collected_at, self._buffered_inputs = 0, 0, None
        return super().train(*args, **kwargs)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            process, device = self.accelerator.process_index, self.accelerator.device
            steps = self.state.global_step
            in_hand = rollouts.load(checkpoint, process, self._plan, device, steps)
            self._step, self._collected_at = in_hand.step, in_hand.collected_at
            self._buffered_inputs = in_hand.batches
            reference.load(checkpoint, self)

    def _prepare_inputs(self, generation_batch: Any) -> Batch:  # noqa: ANN401
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if not self.model.training:
            return self._finish(cut(inputs))
        batches = self._buffered_inputs
        assert batches is not None, "TRL has just filled its buffer"
        if batches is not before:
            batches = self._buffered_inputs = [self._finish(cut(batch)) for batch in batches]
            self.followed = []
            if self._on_rollout is not None:
                self._on_rollout(scores_of(batches))
        return batches[self._step % self.args.steps_per_generation]

    def _finish(self, batch: Batch) -> Batch:
        """Compute a micro-batch's old log-probabilities at the shapes its loss will have."""
        if "old_per_token_logps" in batch:
            checkpointing = self.args.gradient_checkpointing_kwargs
            with torch.no_grad(), disable_gradient_checkpointing(self.model, checkpointing):
                batch["old_per_token_logps"] = self._forward(self.model, batch)[0]
            # Here a NaN still has a place; in the loss it would be a loss that is NaN.
            check_finite("old_logprobs", batch["old_per_token_logps"], policy_mask(batch))
        if self.mismatch is not None:
            # TRL's own was made of log-probabilities at other shapes.
            batch["importance_sampling_ratio"] = self.mismatch.weights(
                batch["old_per_token_logps"],
                batch["sampling_per_token_logps"],
                Padded(policy_mask(batch), None),
            )
        return batch

    def _forward(
        self, model: nn.Module, inputs: Batch, *, compute_entropy: bool = False
    ) -> Forward:
        """Return log-probabilities [B, T], entropies [B, T] and the MoE auxiliary loss."""
        prompt_ids, completion_ids = inputs["prompt_ids"], inputs["completion_ids"]
        return self._get_per_token_logps_and_entropies(
            model,
            torch.cat([prompt_ids, completion_ids], dim=1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            completion_ids.size(1),
            compute_entropy=compute_entropy,
            compute_aux_loss=compute_entropy and self.aux_loss_enabled,
            **{key: inputs.get(key) for key in IMAGE_KEYS},
        )

    def _compute_loss(self, model: nn.Module, inputs: Batch) -> Tensor:
        mask = policy_mask(inputs)
        logprobs, entropies, aux_loss = self._forward(model, inputs, compute_entropy=True)
        # Absent where every update is on-policy: the ratio is 1.
        old_logprobs = inputs.get("old_per_token_logps", logprobs.detach())
        out = self.objective(logprobs, old_logprobs, inputs["advantages"], mask)
        loss = out.per_token
        if self.args.off_policy_mask_threshold is not None:
            loss = loss * self.get_off_policy_mask(
                inputs["advantages"].unsqueeze(1),
                logprobs,
                inputs.get("sampling_per_token_logps", old_logprobs),
                mask,
                self.args.off_policy_mask_threshold,
            )
        assert entropies is not None, "they were asked for"
        entropies = torch.where(mask, entropies, 0.0)
        weights = out.weights if self.beta and self.args.use_bias_correction_kl else None
        self._forward_done = logprobs, entropies, aux_loss
        try:
            total: Tensor = super()._compute_loss(
                model, in_trls_terms(inputs, loss, logprobs, mask, weights)
            )
        finally:
            self._forward_done = None
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name in [name for name in metrics if name.startswith("clip_ratio/")]:
            del metrics[name]  # of a clip that is turned off; ours is counted by position
        if self.model.training:
            self._collect(out.statistics, entropies, mask)
            # Copies: a view would hold on to the whole micro-batch.
            first = logprobs[0].detach().clone(), old_logprobs[0].clone()
            self.followed.append((inputs["row"][0], *first))
        return total

    def _collect(self, positions: PositionStatistics, entropies: Tensor, mask: Tensor) -> None:
        """Add up on the device; nothing is read before `log`."""
        if self.state.global_step == self._collected_at:
            before = self._before_updates
            self._before_updates = positions if before is None else before + positions
        entropy = torch.stack([entropies.sum(), mask.sum()]).detach()
        self.positions = positions if self.positions is None else self.positions + positions
        self._entropy = entropy if self._entropy is None else self._entropy + entropy

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add ratios, clip rates and entropy since the last log, then log as TRL does."""
        if not self.model.training or self.positions is None or self._entropy is None:
            super().log(logs, start_time)
            return
        before = self._before_updates
        group = dist.group.WORLD if self.accelerator.num_processes > 1 else None
        self.positions, *first = over_ranks(
            [self.positions] if before is None else [self.positions, before], group
        )
        total, tokens = self.accelerator.reduce(self._entropy, reduction="sum").tolist()
        found = self.positions.summary() | (on_policy_metrics(first[0]) if first else {})
        found = {f"ctpo/{name}": value for name, value in found.items()}
        # Among TRL's own metrics, which it leaves empty where there was nothing to measure.
        for name, value in (found | {"entropy": total / tokens if tokens else math.nan}).items():
            self._metrics["train"][name] = [value]
        super().log(logs, start_time)
        self.positions = self._entropy = self._before_updates = None
