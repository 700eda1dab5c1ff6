"""A bootstrap over independent units, such as problems or prompts, and 95 % intervals from it.

The percentile bootstrap in numpy: what is resampled is how often each unit is drawn, so that one
set of draws serves every figure of the same units and differences between figures stay paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

PERCENTILES = (2.5, 97.5)
_CHUNK = 1_000  # resamples held at a time: 10,000 of 5,000 problems would be 400 MB


@dataclass(frozen=True)
class Interval:
    """A number with the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, value: float, resampled: ArrayLike) -> Self:
        """Return a number with the percentiles of its resampled values.

        Args:
            value: The number.
            resampled: The same of each resample, [B]; NaN where it is not defined, such as a
                quotient of a resample that drew only zeros.
        """
        low, high = np.nanpercentile(np.asarray(resampled, dtype=np.float64), PERCENTILES)
        return cls(value, float(low), float(high))


def draws(units: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield how often each unit is drawn in each resample, [at most 1,000, units] at a time.

    Args:
        units: Number of units; as many are drawn, with replacement.
        resamples: Number of resamples in all.
        seed: Of the draws.
    """
    random = np.random.default_rng(seed)
    even = np.full(units, 1 / units)
    for start in range(0, resamples, _CHUNK):
        yield random.multinomial(units, even, min(_CHUNK, resamples - start)).astype(np.float64)


def mean_interval(values: Sequence[float], resamples: int, seed: int) -> Interval:
    """Return the mean of the units' values with its interval."""
    table = np.asarray(values, dtype=np.float64)
    sums = np.concatenate([counts @ table for counts in draws(len(table), resamples, seed)])
    return Interval.of(float(table.mean()), sums / len(table))
