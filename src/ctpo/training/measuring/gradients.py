"""Per-trajectory gradients of a model, and what `ctpo.theory` makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from ctpo.objective import Objective
from ctpo.theory.measured import (
    ESTIMATORS,
    NO_RATIO,
    PromptSums,
    all_coefficients,
    qualities,
)
from ctpo.theory.measured_ratios import by_position, weight_sample_size
from ctpo.theory.measured_tables import Distance
from ctpo.theory.projection import Sketch, trajectory_gradients
from ctpo.tir import Trajectory
from ctpo.training.listening import Listener
from ctpo.training.models import load_model

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Sampled:
    """Answers with their prompts.

    Attributes:
        trajectories: Graded; those that could not be graded are left out.
        prompts: Index of the problem that each answers.
        unknown: How many could not be graded.
    """

    trajectories: list[Trajectory]
    prompts: list[int]
    unknown: int


@dataclass(frozen=True)
class Measurement:
    """All that was measured of a run.

    Attributes:
        old: Batch of the old policy; None for models from files.
        distances: One for each new policy.
        unknown: Answers that could not be graded and were left out.
        parameters: Number of parameters that gradients were taken by.
    """

    old: int | None
    distances: list[Distance]
    unknown: int
    parameters: int


class Bench:
    """Takes gradients of single trajectories.

    Args:
        prompts: Number of problems.
        temperature: Of the policy: its logits are divided by it.
        seed: Of projection and bootstrap.
        listener: Is told how far it is.
        objectives: What is measured besides `ESTIMATORS`, by name.
    """

    def __init__(
        self,
        prompts: int,
        temperature: float,
        seed: int,
        listener: Listener,
        objectives: Mapping[str, Objective] = MappingProxyType({}),
    ) -> None:
        self._estimators = {**ESTIMATORS, **objectives}
        self._windowed = [n for n in self._estimators if n.endswith("(preset)") or n in objectives]
        self._prompts = prompts
        self._temperature = temperature
        self._seed = seed
        self._listener = listener

    def logprobs(
        self, name: str, model: PreTrainedModel, trajectories: Sequence[Trajectory]
    ) -> list[Float[Tensor, " T_i"]]:
        """Return log-probabilities of the response tokens, one trajectory at a time as later."""
        self._listener.phase(name, len(trajectories))
        result = []
        with torch.no_grad():
            for i, trajectory in enumerate(trajectories):
                result.append(response_logprobs(model, trajectory, self._temperature).cpu())
                self._listener.progress(i + 1)
        return result

    def distance(
        self,
        after: int,
        model: PreTrainedModel,
        data: Sampled,
        before: Sequence[Tensor],
        advantages: Float[Tensor, " N"],
        fresh: Sampled | None,
        fresh_advantages: Float[Tensor, " M"] | None,
    ) -> Distance:
        """Return what is measured of one new policy.

        Args:
            after: Batches of training between the two; 0 where there is no such number.
            model: π_θ.
            data: Answers of π_old.
            before: Their log π_old.
            advantages: Reward less baseline of each.
            fresh: Answers of π_θ, for the on-policy gradient; None leaves it out.
            fresh_advantages: Reward less baseline of each of those.
        """
        now = self.logprobs(f"{after} on, log-probs", model, data.trajectories)
        masks = [torch.tensor(t.mask) for t in data.trajectories]
        log_ratios = [(a - b)[m] for a, b, m in zip(now, before, masks, strict=True)]
        coefficients = all_coefficients(now, before, advantages, masks, self._estimators)
        sketch = Sketch(trainable(model), seed=self._seed)
        pieces = coefficients.split([len(m) for m in masks], dim=1)
        sums, squares = self._gradients(f"{after} on, gradients", model, data, pieces, sketch)
        reference = None
        if fresh is not None:
            assert fresh_advantages is not None
            reference_pieces = [
                torch.where(torch.tensor(t.mask), a, 0.0)[None]
                for t, a in zip(fresh.trajectories, fresh_advantages, strict=True)
            ]
            reference, _ = self._gradients(
                f"{after} on, reference", model, fresh, reference_pieces, sketch
            )
        names = list(self._estimators)
        found, norm, noise = qualities(sums, reference, names, seed=self._seed)
        policy_tokens = torch.cat(masks) & (
            advantages.repeat_interleave(torch.tensor([len(m) for m in masks])) != 0
        )
        clipped = {
            name.removesuffix(" (preset)"): float(
                (coefficients[names.index(name)][policy_tokens] == 0).double().mean()
            )
            for name in self._windowed
        }
        tokens = sum(map(len, log_ratios))
        return Distance(
            after,
            len(data.trajectories),
            0 if fresh is None else len(fresh.trajectories),
            -float(torch.cat(log_ratios).double().sum()) / tokens,
            {
                name: weight_sample_size(log_ratios, name)
                for name in ("token", "cumulative", "full-sequence")
            },
            clipped,
            found,
            norm,
            noise,
            by_position(log_ratios, data.prompts, seed=self._seed),
            _by_length(names, [len(x) for x in log_ratios], squares),
        )

    def _gradients(
        self,
        name: str,
        model: PreTrainedModel,
        data: Sampled,
        coefficients: Sequence[Float[Tensor, "E T_i"]],
        sketch: Sketch,
    ) -> tuple[PromptSums, Float[Tensor, "N E"]]:
        """Return the sums by prompt, and |g|² of each trajectory."""
        self._listener.phase(name, len(data.trajectories))
        parameters = trainable(model)
        rows = len(coefficients[0])
        sums = PromptSums(self._prompts, rows, sketch.dimensions)
        squares = torch.zeros(len(data.trajectories), rows, dtype=torch.float64)
        for i, (trajectory, part) in enumerate(zip(data.trajectories, coefficients, strict=True)):
            if not bool(part.any()):  # the advantage is 0: so is every gradient
                sums.add_nothing(data.prompts[i])
            else:
                logprobs = response_logprobs(model, trajectory, self._temperature)
                part = part.to(logprobs.device)
                squares[i], sketches = trajectory_gradients(logprobs, parameters, part, sketch)
                sums.add(data.prompts[i], squares[i], sketches)
            self._listener.progress(i + 1)
        return sums, squares


def load_for_gradients(
    path: str | Path,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return a model in float32, ready for gradients of single trajectories, and its tokenizer.

    Args:
        path: A directory or a Hub name.

    Raises:
        ModelNotFound: There is no such model.
    """
    model, tokenizer = load_model(path, torch.float32)
    # The only attention whose backward pass takes several gradients at once.
    model.set_attn_implementation("eager")
    return model.eval(), tokenizer


def trainable(model: PreTrainedModel) -> list[Tensor]:
    """Return the parameters that gradients are taken by."""
    return [p for p in model.parameters() if p.requires_grad]


def response_logprobs(
    model: PreTrainedModel, trajectory: Trajectory, temperature: float
) -> Float[Tensor, " T"]:
    """Return log π(a_t|s_t) of every response token, in nats and float32, with its graph.

    Args:
        model: The policy.
        trajectory: Whose tokens.
        temperature: The logits are divided by it.
    """
    ids = torch.tensor([trajectory.prompt_ids + trajectory.response_ids], device=model.device)
    length = len(trajectory.response_ids)
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=length + 1).logits[0, :-1]
    logprobs = (logits.float() / temperature).log_softmax(-1)
    return logprobs.gather(-1, ids[0, -length:, None])[:, 0]


def less_baseline(sampled: Sampled, baseline: Mapping[int, float]) -> Float[Tensor, " N"]:
    """Return the reward less its problem's baseline, of each answer."""
    # Without a graded answer the baseline is 0, which is as unbiased as any other.
    return torch.tensor(
        [
            t.reward - baseline.get(prompt, 0.0)
            for prompt, t in zip(sampled.prompts, sampled.trajectories, strict=True)
            if t.reward is not None
        ],
        dtype=torch.float64,
    )


def mean_rewards(sampled: Sampled, problems: int) -> dict[int, float]:
    """Return the mean reward of each problem that has one."""
    rewards: dict[int, list[float]] = {}
    for prompt, trajectory in zip(sampled.prompts, sampled.trajectories, strict=True):
        assert trajectory.reward is not None
        rewards.setdefault(prompt, []).append(trajectory.reward)
    return {i: sum(rewards[i]) / len(rewards[i]) for i in range(problems) if i in rewards}


def _by_length(
    names: Sequence[str], lengths: Sequence[int], squares: Float[Tensor, "N E"]
) -> list[tuple[int, dict[str, float]]]:
    """Return for each third of the trajectories by length the mean |g|² over that of weight 1."""
    order = torch.tensor(lengths).argsort(stable=True)
    result = []
    for part in order.chunk(3):
        means = squares[part].mean(0)
        scale = means[names.index(NO_RATIO)].clamp(min=1e-300)
        result.append(
            (
                int(max(lengths[i] for i in part.tolist())),
                {name: float(means[e] / scale) for e, name in enumerate(names) if e},
            )
        )
    return result
