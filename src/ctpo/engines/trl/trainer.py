"""`CTPOTrainer`: TRL's GRPO trainer with the CTPO objective."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import Sampler
from trl import GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing

from ctpo.engines.trl import rollouts
from ctpo.engines.trl.config import CTPOConfig, refuse_mismatch
from ctpo.engines.trl.mismatch import mismatch_of
from ctpo.engines.trl.model_calls import dropped_fields, plain_sampling, positions_of_tokens
from ctpo.engines.trl.sampler import EpochSampler
from ctpo.grading.rewards import check_reward
from ctpo.objective import Objective, ObjectiveSpec, PositionStatistics
from ctpo.objective.inputs import check_finite
from ctpo.objective.layout import Padded
from ctpo.objective.statistics.steps import on_policy_metrics, over_ranks

Batch = dict[str, Any]

logger = logging.getLogger(__name__)

# Keys of a micro-batch whose columns are those of the completion.
_COMPLETION_KEYS = (
    "completion_ids",
    "completion_mask",
    "tool_mask",
    "old_per_token_logps",
    "sampling_per_token_logps",
    "importance_sampling_ratio",
)
_IMAGE_KEYS = ("pixel_values", "image_grid_thw", "token_type_ids", "mm_token_type_ids")


@dataclass(frozen=True)
class RolloutScores:
    """What the trainer adds to a batch of rollouts, in the order they were collected.

    Attributes:
        advantages: One per response.
        old_logprobs: Per response, the trainer's log-probabilities before the first update, one per
            completion token, and none for a response masked out as a whole. None where every update
            is on-policy, so that no old log-probabilities are needed.
    """

    advantages: list[float]
    old_logprobs: list[list[float]] | None


class CTPOTrainer(GRPOTrainer):
    """`GRPOTrainer` whose loss is the objective of its `CTPOConfig`.

    Besides `_compute_loss` it changes what the loss needs to be right: sampling follows the plain
    distribution, whatever the model's generation configuration says; old log-probabilities are
    computed on the very micro-batches, cut to their own longest row, that the loss sees; the order
    of prompts is a function of seed and epoch, and a checkpoint holds the rollouts it is in the
    middle of, so that a resumed run continues exactly; ratios and clip rates are collected by
    position.

    Args:
        *args: As `GRPOTrainer`.
        objective: The objective, if it is not the one that `args` describes.
        on_rollout: Called after each batch of rollouts has been scored.
        **kwargs: As `GRPOTrainer`; `args` is a `CTPOConfig`.

    Attributes:
        positions: Statistics by position since the last log, or None before the first. Callbacks
            read them in `on_log`.

    Raises:
        TypeError: `args` is not a `CTPOConfig`, or `objective` no `Objective`.
        ValueError: `args` changes an objective that is not used, or the objective has a mismatch
            weight, which is TRL's to compute.
        RuntimeError: TRL's loss has been replaced, as Unsloth does: ours would never be called.
    """

    _tag_names = ["trl", "ctpo"]
    _name = "CTPO"
    _paper = {
        "title": "Rethinking Importance Sampling in LLM Policy Optimization: "
        "A Cumulative Token Perspective",
        "id": "2605.07331",
    }

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - TRL's own signature
        objective: Objective | None = None,
        on_rollout: Callable[[RolloutScores], None] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        _refuse_patched_trainer()
        config = kwargs.get("args", args[2] if len(args) > 2 else None)
        if not isinstance(config, CTPOConfig):
            raise TypeError(f"args is {type(config).__name__}; CTPOTrainer needs a CTPOConfig")
        self.objective = _objective(config, objective)
        self.mismatch = mismatch_of(config)
        self.positions: PositionStatistics | None = None
        self._before_updates: PositionStatistics | None = None
        self._entropy: Tensor | None = None
        self._on_rollout = on_rollout
        self._old_logprobs_wait = False
        self._buffered_inputs: list[Batch] | None = None
        self._collected_at = 0  # optimizer steps done when the rollouts in hand were collected
        super().__init__(*args, **kwargs)
        self._say_what_is_not_sampled_with()

    def _say_what_is_not_sampled_with(self) -> None:
        own = getattr(self.accelerator.unwrap_model(self.model), "generation_config", None)
        if own is not None and not self.use_vllm:
            for name, value in dropped_fields(own, self.generation_kwargs).items():
                logger.warning(
                    "the model's generation_config has %s = %r, which is left out when sampling: "
                    "log-probabilities are of the plain distribution",
                    name,
                    value,
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
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        if self._old_logprobs_wait:
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

    def _prepare_inputs(self, generation_batch: Any) -> Batch:  # noqa: ANN401
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if not self.model.training:
            return self._finish(cut(inputs))
        batches = self._buffered_inputs
        assert batches is not None, "TRL has just filled its buffer"
        if batches is not before:
            batches = self._buffered_inputs = [self._finish(cut(batch)) for batch in batches]
            self._report_rollout(batches)
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

    def _report_rollout(self, batches: list[Batch]) -> None:
        if self._on_rollout is None:
            return
        rows: dict[int, tuple[float, list[float] | None]] = {}
        for batch in batches:
            old = batch["old_per_token_logps"].tolist() if "old_per_token_logps" in batch else None
            lengths = batch["completion_mask"].sum(1).tolist()
            for i, (row, advantage) in enumerate(
                zip(batch["row"].tolist(), batch["advantages"].tolist(), strict=True)
            ):
                rows[row] = (advantage, None if old is None else old[i][: lengths[i]])
        scores = [rows[row] for row in sorted(rows)]
        old_logprobs = [old for _, old in scores if old is not None]
        self._on_rollout(RolloutScores([a for a, _ in scores], old_logprobs or None))

    def _forward(
        self, model: nn.Module, inputs: Batch, *, compute_entropy: bool = False
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Return log-probabilities [B, T], entropies [B, T] and the MoE auxiliary loss."""
        prompt_ids, completion_ids = inputs["prompt_ids"], inputs["completion_ids"]
        return self._get_per_token_logps_and_entropies(
            model,
            torch.cat([prompt_ids, completion_ids], dim=1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            completion_ids.size(1),
            compute_entropy=compute_entropy,
            compute_aux_loss=compute_entropy and self.aux_loss_enabled,
            **{
                key: inputs.get(key)
                for key in (
                    "pixel_values",
                    "image_grid_thw",
                    "num_images",
                    "pixel_attention_mask",
                    "spatial_shapes",
                    "num_tiles",
                    "image_sizes",
                    "token_type_ids",
                    "mm_token_type_ids",
                    "image_position_ids",
                )
            },
        )

    def _compute_loss(self, model: nn.Module, inputs: Batch) -> Tensor:
        mask = policy_mask(inputs)
        logprobs, entropies, aux_loss = self._forward(model, inputs, compute_entropy=True)
        # Absent where every update is on-policy: the ratio is 1.
        old_logprobs = inputs.get("old_per_token_logps", logprobs.detach())
        out = self.objective(logprobs, old_logprobs, inputs["advantages"], mask)
        per_token = out.per_token
        if "importance_sampling_ratio" in inputs:  # trainer against generator
            per_token = per_token * inputs["importance_sampling_ratio"]

        loss = self._reduce(per_token, mask, inputs)
        if aux_loss is not None:
            loss = loss + self.router_aux_loss_coef * aux_loss / self._accumulation()
        if self.model.training:
            self._collect(out.statistics, entropies, mask)
        return loss

    def _accumulation(self) -> float:
        return self.current_gradient_accumulation_steps if self.model.training else 1.0

    def _reduce(self, per_token: Tensor, mask: Tensor, inputs: Batch) -> Tensor:
        """Reduce to a scalar as TRL does, so that micro-batches and ranks add up."""
        if self.loss_type == "dapo":
            normalizer = inputs["num_items_in_batch"].clamp(min=1) / self.accelerator.num_processes
            if self.model.training:
                normalizer = normalizer * self._accumulation() / self.args.steps_per_generation
            return per_token.sum() / normalizer
        if self.loss_type == "bnpo":
            loss = per_token.sum() / mask.sum().clamp(min=1)
        elif self.loss_type == "dr_grpo":
            loss = per_token.sum() / (len(per_token) * self.max_completion_length)
        else:
            loss = (per_token.sum(1) / mask.sum(1).clamp(min=1)).mean()
        return loss / self._accumulation()

    def _collect(
        self, positions: PositionStatistics, entropies: Tensor | None, mask: Tensor
    ) -> None:
        """Add up on the device; nothing is read before `log`."""
        if self.state.global_step == self._collected_at:
            before = self._before_updates
            self._before_updates = positions if before is None else before + positions
        assert entropies is not None, "they were asked for"
        entropy = torch.stack([torch.where(mask, entropies, 0.0).sum(), mask.sum()]).detach()
        self.positions = positions if self.positions is None else self.positions + positions
        self._entropy = entropy if self._entropy is None else self._entropy + entropy

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add ratios, clip rates and entropy since the last log, then log as TRL does."""
        if self.model.training and self.positions is not None and self._entropy is not None:
            before = self._before_updates
            group = dist.group.WORLD if self.accelerator.num_processes > 1 else None
            self.positions, *first = over_ranks(
                [self.positions] if before is None else [self.positions, before], group
            )
            total, tokens = self.accelerator.reduce(self._entropy, reduction="sum").tolist()
            found = self.positions.summary() | (on_policy_metrics(first[0]) if first else {})
            logs |= {f"ctpo/{name}": value for name, value in found.items()}
            logs["entropy"] = total / max(tokens, 1)
            super().log(logs, start_time)
            self.positions = self._entropy = self._before_updates = None
        else:
            super().log(logs, start_time)


def policy_mask(batch: Batch) -> Tensor:
    """Return the mask [B, T] that is 1 on the tokens the policy chose."""
    mask = batch["completion_mask"]
    return (mask * batch["tool_mask"] if "tool_mask" in batch else mask).bool()


def cut(batch: Batch) -> Batch:
    """Cut a micro-batch to its own longest prompt and completion.

    Micro-batches come as wide as the longest row of the whole batch of rollouts; more than half of
    the columns can be padding. Batches with images are left alone.
    """
    if any(key in batch for key in _IMAGE_KEYS):
        return batch
    prompt = max(1, int(batch["prompt_mask"].sum(1).max()))
    completion = max(1, int(batch["completion_mask"].sum(1).max()))
    width = batch["completion_ids"].size(1)
    result = dict(batch)
    for key in ("prompt_ids", "prompt_mask"):
        result[key] = batch[key][:, -prompt:]
    for key in _COMPLETION_KEYS:
        # A weight per sequence has one column, which is not a position.
        if key in batch and batch[key].size(1) == width:
            result[key] = batch[key][:, :completion]
    return result


def _objective(config: CTPOConfig, own: Objective | None) -> Objective:
    """Return the objective handed over, or else the one that the configuration describes."""
    spec = config.objective_spec
    if own is not None and not isinstance(own, Objective):
        raise TypeError(
            f"objective is {own!r}; it must be an Objective. A preset's name goes into CTPOConfig"
        )
    if own is not None and spec != ObjectiveSpec():
        raise ValueError(
            f"CTPOConfig describes an objective, {spec}, and CTPOTrainer has one handed over; "
            "leave one of them out"
        )
    objective = spec.build() if own is None else own
    refuse_mismatch(objective)
    return objective


def _refuse_patched_trainer() -> None:
    # Unsloth compiles a GRPOTrainer of its own with the loss written into it.
    base = "trl.trainer.grpo_trainer"
    for name in ("compute_loss", "_prepare_inputs", "_generate_and_score_completions"):
        module = getattr(GRPOTrainer, name).__module__
        if GRPOTrainer.__module__ != base or not module.startswith(("trl.", "transformers.")):
            raise RuntimeError(
                f"trl.GRPOTrainer.{name} comes from {module}, not from TRL: a library such as "
                "Unsloth has replaced the trainer's loss, and the CTPO objective would never be "
                "called. Import ctpo.engines.trl without importing that library"
            )
