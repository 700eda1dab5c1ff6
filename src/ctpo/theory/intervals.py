"""Means, squared norms of means and their intervals, with prompts as the independent units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

RESAMPLES = 1000


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
        # A quotient is not a number where a resample drew no prompt that has a gradient.
        low, high = np.nanpercentile(np.asarray(resampled), (2.5, 97.5))
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


def weighted_mean(
    values: Float[Tensor, " prompts"], weights: Float[Tensor, "B prompts"]
) -> Float[Tensor, " B"]:
    """Return the mean over prompts of each resample.

    Args:
        values: One per prompt.
        weights: How often each prompt was drawn.
    """
    return (weights @ values) / weights.sum(1)


def interval(resampled: Float[Tensor, " B"]) -> Interval:
    """Return the first of the resampled numbers, with the percentiles of the others.

    Args:
        resampled: A number for each row of `resample_prompts`.
    """
    return Interval.of(float(resampled[0]), resampled[1:])
