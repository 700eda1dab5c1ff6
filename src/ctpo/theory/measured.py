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

import numpy as np
import torch

from ctpo.objective import PRESETS, RATIOS, Objective
from ctpo.theory.bias import plain

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

RESAMPLES = 1000


def all_coefficients(
    logprobs: Sequence[Float[Tensor, " T_i"]],
    old_logprobs: Sequence[Float[Tensor, " T_i"]],
    advantages: Float[Tensor, " N"],
    masks: Sequence[Bool[Tensor, " T_i"]],
) -> Float[Tensor, "E tokens"]:
    """Return c_t of every estimator, trajectories one after the other.

    Args:
        logprobs: log π_θ in nats, one tensor per trajectory.
        old_logprobs: log π_old in nats.
        advantages: Reward less baseline of each trajectory.
        masks: True on policy tokens.
    """
    mask = torch.cat(list(masks))
    lengths = torch.tensor([len(x) for x in masks])
    edges = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    now, before = torch.cat(list(logprobs)).double(), torch.cat(list(old_logprobs)).double()
    rows = []
    for objective in ESTIMATORS.values():
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


def weight_sample_size(log_ratios: Sequence[Float[Tensor, " H_i"]], ratio: str) -> float:
    """Return the effective sample size of a ratio's weights over their number, over all tokens.

    (Σ w)² / (n Σ w²).

    Args:
        log_ratios: log r_t of each trajectory's policy tokens.
        ratio: A key of `RATIOS`.
    """
    now = [x.double() for x in log_ratios]
    zeros = [torch.zeros_like(x) for x in now]
    advantages = torch.ones(len(now), dtype=torch.float64)
    masks = [torch.ones_like(x, dtype=torch.bool) for x in now]
    output = plain(ratio)(now, zeros, advantages, masks, statistics=False)
    weights = torch.cat(list(output.weights))
    return float(weights.sum() ** 2 / weights.square().sum() / len(weights))


class PromptSums:
    """Gradients of many trajectories, kept as sums by prompt.

    Args:
        prompts: Number of prompts.
        estimators: Number of estimators E.
        dimensions: Of the projection.
    """

    def __init__(self, prompts: int, estimators: int, dimensions: int) -> None:
        self.count = torch.zeros(prompts, dtype=torch.float64)
        self.sketches = torch.zeros(prompts, estimators, dimensions)
        self.squares = torch.zeros(prompts, estimators, dtype=torch.float64)
        self.fourths = torch.zeros(prompts, estimators, dtype=torch.float64)
        self.largest = torch.zeros(estimators, dtype=torch.float64)

    def add(
        self, prompt: int, squares: Float[Tensor, " E"], sketches: Float[Tensor, "E k"]
    ) -> None:
        """Count one trajectory.

        Args:
            prompt: Which prompt it answers.
            squares: |g|² of each estimator.
            sketches: Its projection.
        """
        self.count[prompt] += 1
        self.sketches[prompt] += sketches
        self.squares[prompt] += squares
        self.fourths[prompt] += squares**2
        self.largest = torch.maximum(self.largest, squares)

    def add_nothing(self, prompt: int) -> None:
        """Count a trajectory whose gradient is 0.

        Args:
            prompt: Which prompt it answers.
        """
        self.count[prompt] += 1

    def keep(self, prompts: Tensor) -> PromptSums:
        """Return the sums of some prompts only.

        Args:
            prompts: Indices of prompts.
        """
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
class Interval:
    """A number with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, resampled: Sequence[float] | Tensor) -> Interval:
        """Return a number with the percentiles of its resampled values.

        Args:
            value: The number.
            resampled: The same of each resample.
        """
        low, high = np.percentile(np.asarray(resampled), (2.5, 97.5))
        return cls(value, float(low), float(high))


def resample_prompts(prompts: int, resamples: int, seed: int) -> Float[Tensor, "B prompts"]:
    """Return how often each prompt is drawn in each resample; the first row is once each.

    Args:
        prompts: Number of prompts.
        resamples: Number of resamples.
        seed: Of the draws.
    """
    random = np.random.default_rng(seed)
    drawn = random.multinomial(prompts, np.full(prompts, 1 / prompts), size=resamples)
    return torch.from_numpy(np.vstack([np.ones(prompts), drawn]))


def mean_square(
    vectors: Float[Tensor, "prompts k"], weights: Float[Tensor, "B prompts"]
) -> Float[Tensor, " B"]:
    """Return an unbiased estimate of |E[v]|² for each resample; it can be negative.

    Σ_{p≠q} w_p w_q v_p·v_q / Σ_{p≠q} w_p w_q: a prompt drawn twice is not paired with itself.

    Args:
        vectors: One per prompt.
        weights: How often each prompt was drawn.
    """
    vectors = vectors.double()
    total = (weights @ vectors).square().sum(1)
    own = weights.square() @ vectors.square().sum(1)
    return (total - own) / (weights.sum(1).square() - weights.square().sum(1))


@dataclass(frozen=True)
class Quality:
    """What was measured of one estimator.

    Attributes:
        name: A key of `ESTIMATORS`.
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
        """Return √(bias² + variance / n), the bias by the full ratio.

        Args:
            batch: n, trajectories per update.
        """
        return (max(self.bias_from_full.value, 0.0) + self.variance.value / batch) ** 0.5


def qualities(
    old: PromptSums, reference: PromptSums | None, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[list[Quality], Interval | None, Interval | None]:
    """Return every estimator's quality, and |∇J|² and the variance of the on-policy reference.

    Args:
        old: Gradients on data of π_old, in the order of `ESTIMATORS`.
        reference: On-policy gradients of π_θ on the same prompts, one estimator.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        ValueError: If fewer than two prompts have trajectories of both kinds.
    """
    has = old.count > 0
    if reference is not None:
        has &= reference.count > 0
    if int(has.sum()) < 2:
        raise ValueError(f"{int(has.sum())} prompts have trajectories; at least 2 are needed")
    index = has.nonzero()[:, 0]
    old = old.keep(index)
    weights = resample_prompts(len(index), resamples, seed)
    means = old.means
    reference_means = None
    norm = noise = None
    if reference is not None:
        reference = reference.keep(index)
        reference_means = reference.means[:, 0]
        norm_square = mean_square(reference_means, weights)
        squares = _weighted(reference.squares[:, 0] / reference.count, weights)
        norm = _interval(norm_square)
        noise = _interval(squares - norm_square)
    names = list(ESTIMATORS)
    full = names.index(FULL)
    variances = [
        _weighted(old.squares[:, e] / old.count, weights) - mean_square(means[:, e], weights)
        for e in range(len(names))
    ]
    found = []
    for e, name in enumerate(names):
        total, total_fourth = old.squares[:, e].sum(), old.fourths[:, e].sum()
        alive = float(total) > 0
        found.append(
            Quality(
                name,
                _interval(variances[e]),
                _interval(variances[e] / variances[full]),
                None
                if reference_means is None
                else _interval(mean_square(means[:, e] - reference_means, weights)),
                _interval(mean_square(means[:, e] - means[:, full], weights)),
                float(total**2 / total_fourth / old.count.sum()) if alive else 0.0,
                float(old.largest[e] / total) if alive else 0.0,
            )
        )
    return found, norm, noise


def _weighted(values: Float[Tensor, " prompts"], weights: Tensor) -> Float[Tensor, " B"]:
    return (weights @ values) / weights.sum(1)


def _interval(resampled: Float[Tensor, " B"]) -> Interval:
    return Interval.of(float(resampled[0]), resampled[1:])


@dataclass(frozen=True)
class AtPosition:
    """Ratios at one position t, over the trajectories that reach it.

    Attributes:
        t: The position, from 1.
        count: Trajectories.
        cumulative: Var ρ_t.
        full: Var ρ_H.
        gap: Var ρ_H - Var ρ_t.
        drift: Mean of log ρ_t.
        spread: Standard deviation of log ρ_t.
        below: Share with log ρ_t < -0.025√t.
        below_free: Share with M_t < -0.025√t.
        largest: Share of Σ ρ_H² that the largest trajectory carries.
    """

    t: int
    count: int
    cumulative: float
    full: float
    gap: Interval
    drift: float
    spread: float
    below: float
    below_free: float
    largest: float


# Fewer trajectories say nothing about a variance.
MIN_TRAJECTORIES = 50


def by_position(
    log_ratios: Sequence[Float[Tensor, " H_i"]],
    prompts: Sequence[int],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    eps_low: float = 0.025,
) -> list[AtPosition]:
    """Return the spread of ρ_t and of ρ_H at every position that enough trajectories reach.

    Whether a trajectory reaches t is decided before t, so E[ρ_H | s_t, a_t] = ρ_t holds among those
    that do, and with it Prop. 2 (i).

    Args:
        log_ratios: log r_t of each trajectory's policy tokens.
        prompts: Which prompt each answers.
        resamples: Of the bootstrap over prompts.
        seed: Of the bootstrap.
        eps_low: Lower half-width of the window.
    """
    number = max(prompts) + 1
    draws = resample_prompts(number, resamples, seed)
    of_prompt = torch.as_tensor(list(prompts))
    sums = [x.double().cumsum(0) for x in log_ratios]
    free = [torch.expm1(x.double()).cumsum(0) for x in log_ratios]
    results = []
    for t in range(1, max(map(len, sums)) + 1):
        reach = [i for i, x in enumerate(sums) if len(x) >= t]
        if len(reach) < MIN_TRAJECTORIES:
            break
        log_rho = torch.stack([sums[i][t - 1] for i in reach])
        log_full = torch.stack([sums[i][-1] for i in reach])
        martingale = torch.stack([free[i][t - 1] for i in reach])
        weights = draws[:, of_prompt[reach]]
        cumulative, full = (_variance(x.exp(), weights) for x in (log_rho, log_full))
        squares = (2 * log_full).exp()
        bound = -eps_low * t**0.5
        results.append(
            AtPosition(
                t,
                len(reach),
                float(cumulative[0]),
                float(full[0]),
                _interval(full - cumulative),
                float(log_rho.mean()),
                float(log_rho.std()),
                float((log_rho < bound).double().mean()),
                float((martingale < bound).double().mean()),
                float(squares.max() / squares.sum()),
            )
        )
    return results


def _variance(values: Float[Tensor, " N"], weights: Float[Tensor, "B N"]) -> Float[Tensor, " B"]:
    total = weights.sum(1)
    mean = weights @ values / total
    return weights @ values.square() / total - mean**2
