"""Statistics of a few runs, after Agarwal et al. 2021, https://arxiv.org/abs/2108.13264.

Runs come in strata, the levels of the axes that a figure is over. A resample draws as many runs
from each stratum as it has, with replacement, so no stratum weighs more in one resample than in
another. Of differences, pairs are drawn and not runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from ctpo.intervals import PERCENTILES, Interval

RESAMPLES = 10_000
_EXACT = 16  # pairs up to which all 2^n signs are tried
_DRAWS = 100_000  # signs drawn beyond

Statistic = Callable[[np.ndarray], np.ndarray]
"""From runs [..., N, *] to a number for each leading index, [..., *]."""


def mean(runs: np.ndarray) -> np.ndarray:
    """Return the mean over runs.

    Args:
        runs: [B, N] or [B, N, T].
    """
    return runs.mean(1)


def interquartile_mean(runs: np.ndarray) -> np.ndarray:
    """Return the mean without the lowest and the highest quarter, ⌊N/4⌋ runs each.

    As `scipy.stats.trim_mean(runs, 0.25)`: less moved by one run than the mean, and by more than
    one than the median.

    Args:
        runs: [B, N] or [B, N, T].
    """
    cut = runs.shape[1] // 4
    return np.sort(runs, axis=1)[:, cut : runs.shape[1] - cut].mean(1)


def draws(
    strata: Sequence[int], seed: int | Sequence[int] = 0, resamples: int = RESAMPLES
) -> np.ndarray:
    """Return which runs each resample draws, [B, N], as indices into the strata laid end to end."""
    random = np.random.default_rng(seed)
    starts = np.cumsum([0, *strata[:-1]])
    parts = [
        start + random.integers(count, size=(resamples, count))
        for start, count in zip(starts, strata, strict=True)
    ]
    return np.concatenate(parts, axis=1)


def bootstrap(
    strata: Sequence[np.ndarray], statistic: Statistic, *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Return a statistic of all runs with its stratified percentile bootstrap interval.

    Args:
        strata: Outcomes by stratum, each [N].
        statistic: `mean` or `interquartile_mean`.
        seed: Of the resamples.
        resamples: How many.
    """
    low, value, high = band(strata, statistic, seed=seed, resamples=resamples)
    return Interval(float(value), float(low), float(high))


def band(
    strata: Sequence[np.ndarray], statistic: Statistic, *, seed: int = 0, resamples: int = RESAMPLES
) -> np.ndarray:
    """Return the same of curves, at each of their points by itself: low, value, high, [3, T].

    Args:
        strata: Curves by stratum, each [N, T]; or outcomes, each [N].
        statistic: `mean` or `interquartile_mean`.
        seed: Of the resamples.
        resamples: How many.
    """
    runs = np.concatenate([np.asarray(stratum, dtype=float) for stratum in strata])
    value = statistic(runs[None])[0]
    if min(len(stratum) for stratum in strata) < 2:
        nothing = np.full_like(value, np.nan)
        return np.stack([nothing, value, nothing])
    resampled = statistic(runs[draws([len(s) for s in strata], seed, resamples)])
    low, high = np.percentile(resampled, PERCENTILES, axis=0)
    return np.stack([low, value, high])


def probability_of_improvement(
    pairs: Sequence[np.ndarray], *, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Return how often a run of the first method is better than any run of the second.

    P(X > Y) + P(X = Y)/2 over all runs X and Y of a stratum, the mean over strata. Resamples draw
    runs of the two methods apart: a pair drawn twice would be compared with itself too often.

    Args:
        pairs: Outcomes of both methods by stratum, each [N, 2].
        seed: Of the resamples.
        resamples: How many.
    """
    resampled = []
    wins = [(p[:, :1] > p[None, :, 1]) + (p[:, :1] == p[None, :, 1]) / 2 for p in pairs]
    value = float(np.mean([stratum.mean() for stratum in wins]))
    if min(map(len, pairs)) < 2:
        return Interval(value, np.nan, np.nan)
    for number, stratum in enumerate(wins):
        first, second = (
            draws([len(stratum)], [seed, number, side], resamples) for side in range(2)
        )
        resampled.append(stratum[first[:, :, None], second[:, None, :]].mean((1, 2)))
    return Interval.of(value, np.mean(resampled, axis=0))


def sign_flip(differences: Sequence[float] | np.ndarray, seed: int = 0) -> float:
    """Return the two-sided p-value of paired differences whose signs are chance.

    The share of all signs under which the mean is as far from 0 or farther; of 100,000 random ones
    and the given ones, where there are more than 16 pairs.
    """
    values = np.asarray(differences, dtype=float)
    if not len(values):
        return float("nan")
    if len(values) <= _EXACT:
        signs = np.array(list(itertools.product((1, -1), repeat=len(values))))
    else:
        random = np.random.default_rng(seed)
        signs = np.vstack(
            [np.ones(len(values)), random.choice((1, -1), size=(_DRAWS, len(values)))]
        )
    sums = np.abs(signs @ values)
    # Rounding must not tell a sum from its own mirror image.
    return float(np.mean(sums >= sums[0] - 1e-9 * np.abs(values).sum()))


def holm(p_values: Sequence[float] | np.ndarray) -> list[float]:
    """Return p-values corrected for their number by Holm's step-down method (1979).

    The k-th smallest of m is multiplied by m - k + 1, and none is below one before it. That one of
    the comparisons without any effect is called one is then no likelier than a single p-value says.

    Args:
        p_values: Of all comparisons. NaN, where nothing could be compared, stays and counts not.
    """
    values = np.asarray(p_values, dtype=float)
    corrected = np.full(len(values), np.nan)
    order = np.argsort(values)[: int(np.isfinite(values).sum())]
    scaled = values[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected.tolist()


def profile(
    strata: Sequence[np.ndarray], at: np.ndarray, *, seed: int = 0, resamples: int = 2000
) -> np.ndarray:
    """Return the performance profile: the share of runs above each value, with its band, [3, T].

    Args:
        strata: Outcomes by stratum, each [N].
        at: The values, [T].
        seed: Of the resamples.
        resamples: How many.
    """
    above = [np.asarray(stratum)[:, None] > at for stratum in strata]
    return band(above, mean, seed=seed, resamples=resamples)
