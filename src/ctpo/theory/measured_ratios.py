"""Importance weights of a real model: how they spread, by position and altogether."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ctpo.intervals import Interval
from ctpo.theory.bias import plain
from ctpo.theory.resampling import RESAMPLES, interval, resample_prompts

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


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
                interval(full - cumulative),
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
