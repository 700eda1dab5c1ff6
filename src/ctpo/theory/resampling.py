"""Means and squared norms of means over resampled prompts, the independent units."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ctpo.intervals import Interval, draws

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

RESAMPLES = 1000


def resample_prompts(prompts: int, resamples: int, seed: int) -> Float[Tensor, "B prompts"]:
    """Return how often each prompt is drawn in each resample; the first row is once each."""
    return torch.from_numpy(np.vstack([np.ones(prompts), *draws(prompts, resamples, seed)]))


def mean_square(
    vectors: Float[Tensor, "prompts k"], weights: Float[Tensor, "B prompts"]
) -> Float[Tensor, " B"]:
    """Return an unbiased estimate of |E[v]|² for each resample; it can be negative.

    Σ_{p≠q} w_p w_q v_p·v_q / Σ_{p≠q} w_p w_q: a prompt drawn twice is not paired with itself.
    """
    vectors = vectors.double()
    total = (weights @ vectors).square().sum(1)
    own = weights.square() @ vectors.square().sum(1)
    return (total - own) / (weights.sum(1).square() - weights.square().sum(1))


def weighted_mean(
    values: Float[Tensor, " prompts"], weights: Float[Tensor, "B prompts"]
) -> Float[Tensor, " B"]:
    """Return the mean over prompts of each resample."""
    return (weights @ values) / weights.sum(1)


def interval(resampled: Float[Tensor, " B"]) -> Interval:
    """Return the first of the resampled numbers, with the percentiles of the others.

    Args:
        resampled: A number for each row of `resample_prompts`.
    """
    return Interval.of(float(resampled[0]), resampled[1:])
