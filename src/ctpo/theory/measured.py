"""Bias and variance of gradient estimators from the gradients of a real model.

The units are prompts: of each, the mean gradient over its answers is kept as a random projection,
and answers of one prompt are never taken for independent ones. All squared norms of means are
U-statistics over pairs of different prompts, so that noise does not pass for bias. Intervals are
95 % percentiles of a bootstrap over prompts.

Memory: prompts × estimators × dimensions of the projection, whatever the number of answers and of
parameters. Squared norms of single gradients are exact, norms of means are good to a few percent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from ctpo.intervals import Interval
from ctpo.objective import PRESETS, RATIOS, Objective
from ctpo.theory.bias import plain
from ctpo.theory.resampling import (
    RESAMPLES,
    interval,
    mean_square,
    resample_prompts,
    weighted_mean,
)

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

NO_RATIO = "no ratio"
FULL = "full-sequence"
ESTIMATORS: Mapping[str, Objective | None] = MappingProxyType(
    {NO_RATIO: None}
    | {name: plain(name) for name in RATIOS}
    | {
        f"{name} (preset)": PRESETS[name]
        for name in ("grpo", "gspo", "ctpo", "ctpo-drift-free", "full-sequence")
    }
)
"""What is measured: weight 1, every ratio without a window, and presets with theirs."""


def all_coefficients(
    logprobs: Sequence[Float[Tensor, " T_i"]],
    old_logprobs: Sequence[Float[Tensor, " T_i"]],
    advantages: Float[Tensor, " N"],
    masks: Sequence[Bool[Tensor, " T_i"]],
    estimators: Mapping[str, Objective | None] = ESTIMATORS,
) -> Float[Tensor, "E tokens"]:
    """Return c_t of every estimator, trajectories one after the other.

    Args:
        logprobs: log π_θ in nats, one tensor per trajectory.
        old_logprobs: log π_old in nats.
        advantages: Reward less baseline of each trajectory.
        masks: True on policy tokens.
        estimators: By name; None is weight 1.
    """
    mask = torch.cat(list(masks))
    lengths = torch.tensor([len(x) for x in masks])
    edges = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    now, before = torch.cat(list(logprobs)).double(), torch.cat(list(old_logprobs)).double()
    rows = []
    for objective in estimators.values():
        if objective is None:
            per_token = advantages.double().repeat_interleave(lengths)
            rows.append(torch.where(mask, per_token, 0.0))
            continue
        leaf = now.clone().requires_grad_()
        output = objective(
            leaf, before, advantages.double(), mask, cu_seqlens=edges, statistics=False
        )
        assert isinstance(output.per_token, torch.Tensor)
        (gradient,) = torch.autograd.grad(output.per_token.sum(), leaf)
        rows.append(-gradient)
    return torch.stack(rows)


class PromptSums:
    """Gradients of many trajectories, kept as sums by prompt."""

    def __init__(self, prompts: int, estimators: int, dimensions: int) -> None:
        self.count = torch.zeros(prompts, dtype=torch.float64)
        self.sketches = torch.zeros(prompts, estimators, dimensions)
        self.squares = torch.zeros(prompts, estimators, dtype=torch.float64)
        self.fourths = torch.zeros(prompts, estimators, dtype=torch.float64)
        self.largest = torch.zeros(estimators, dtype=torch.float64)

    def add(
        self, prompt: int, squares: Float[Tensor, " E"], sketches: Float[Tensor, "E k"]
    ) -> None:
        """Count one trajectory."""
        self.count[prompt] += 1
        self.sketches[prompt] += sketches
        self.squares[prompt] += squares
        self.fourths[prompt] += squares**2
        self.largest = torch.maximum(self.largest, squares)

    def add_nothing(self, prompt: int) -> None:
        """Count a trajectory whose gradient is 0."""
        self.count[prompt] += 1

    def keep(self, prompts: Tensor) -> PromptSums:
        """Return the sums of some prompts only."""
        kept = PromptSums(len(prompts), self.squares.shape[1], self.sketches.shape[2])
        kept.count, kept.sketches = self.count[prompts], self.sketches[prompts]
        kept.squares, kept.fourths = self.squares[prompts], self.fourths[prompts]
        kept.largest = self.largest
        return kept

    @property
    def means(self) -> Float[Tensor, "prompts E k"]:
        """Projection of each prompt's mean gradient."""
        return self.sketches / self.count[:, None, None].float()


@dataclass(frozen=True)
class Quality:
    """What was measured of one estimator.

    Attributes:
        name: A key of `ESTIMATORS`, or what else was measured.
        variance: Trace of the covariance of one trajectory's gradient.
        over_full: The same over that of the full ratio without a window, on the same trajectories.
        bias_square: |E g - ∇J|² against the on-policy reference; an unbiased estimate that can be
            negative, None without a reference.
        bias_from_full: |E[g - g_full]|² on the same trajectories, which has far less noise; as the
            full ratio without a window is unbiased for ∇J, it is the same number.
        effective: Effective sample size of the gradient over N: (Σ|g|²)² / (N Σ|g|⁴).
        largest: Share of Σ|g|² that the largest trajectory carries.
    """

    name: str
    variance: Interval
    over_full: Interval
    bias_square: Interval | None
    bias_from_full: Interval
    effective: float
    largest: float

    def rmse(self, batch: int) -> float:
        """Return √(bias² + variance / n), the bias by the full ratio."""
        return (max(self.bias_from_full.value, 0.0) + self.variance.value / batch) ** 0.5


def qualities(
    old: PromptSums,
    reference: PromptSums | None,
    names: Sequence[str] = tuple(ESTIMATORS),
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[list[Quality], Interval | None, Interval | None]:
    """Return every estimator's quality, and |∇J|² and the variance of the on-policy reference.

    Args:
        old: Gradients on data of π_old.
        reference: On-policy gradients of π_θ on the same prompts, one estimator.
        names: Of the estimators in `old`, the full ratio without a window among them.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ValueError: If fewer than two prompts have trajectories of both kinds, or no trajectory of
            either kind has a gradient.
    """
    has = old.count > 0
    if reference is not None:
        has &= reference.count > 0
    if int(has.sum()) < 2:
        raise ValueError(f"{int(has.sum())} prompts have trajectories; at least 2 are needed")
    index = has.nonzero()[:, 0]
    for name, sums in (("old", old), ("new", reference)):
        if sums is not None and not float(sums.squares[index, 0].sum()) > 0:
            raise ValueError(
                f"every answer of the {name} policy got just its problem's mean reward, so there "
                "is no gradient to measure; take more answers, other problems or other checkpoints"
            )
    old = old.keep(index)
    weights = resample_prompts(len(index), resamples, seed)
    means = old.means
    reference_means = None
    norm = noise = None
    if reference is not None:
        reference = reference.keep(index)
        reference_means = reference.means[:, 0]
        norm_square = mean_square(reference_means, weights)
        squares = weighted_mean(reference.squares[:, 0] / reference.count, weights)
        norm = interval(norm_square)
        noise = interval(squares - norm_square)
    full = names.index(FULL)
    variances = [
        weighted_mean(old.squares[:, e] / old.count, weights) - mean_square(means[:, e], weights)
        for e in range(len(names))
    ]
    found = []
    for e, name in enumerate(names):
        total, total_fourth = old.squares[:, e].sum(), old.fourths[:, e].sum()
        alive = float(total) > 0
        found.append(
            Quality(
                name,
                interval(variances[e]),
                interval(variances[e] / variances[full]),
                None
                if reference_means is None
                else interval(mean_square(means[:, e] - reference_means, weights)),
                interval(mean_square(means[:, e] - means[:, full], weights)),
                float(total**2 / total_fourth / old.count.sum()) if alive else 0.0,
                float(old.largest[e] / total) if alive else 0.0,
            )
        )
    return found, norm, noise
