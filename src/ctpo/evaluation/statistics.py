"""Means over problems with honest intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 10_000
# Rows of the table of resamples held at a time; all at once would be 80 kB per problem.
_CHUNK = 1_000
INTERVAL = (2.5, 97.5)  # percentiles


@dataclass(frozen=True)
class Estimate:
    """A mean with its uncertainty.

    Attributes:
        mean: Mean over problems of each problem's mean score, each problem weighing the same; NaN
            if nothing was scored.
        low: Lower end of the 95 % interval; NaN below two scored problems.
        high: Upper end of it.
        standard_error: Standard error of the mean, clustered by problem (not the standard deviation
            of the k runs); NaN below two scored problems.
        problems: Problems the mean is over: those with at least one scored answer.
        answers: Answers given, scored or not.
        unknown: Answers among them that could not be scored. They enter no mean.
    """

    mean: float
    low: float
    high: float
    standard_error: float
    problems: int
    answers: int
    unknown: int

    def to_dict(self) -> dict[str, float | int | None]:
        """The fields by name, ready for JSON, with None for NaN."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Estimate:
        """Reads what `to_dict` wrote.

        Raises:
            TypeError: If a field is missing or unknown.
        """
        values: dict[str, Any] = {n: math.nan if v is None else v for n, v in fields.items()}
        return cls(**values)


def avg_at_k(
    scores: Sequence[Sequence[float | None]], *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    r"""Estimates avg@k: the mean score of k answers to each problem.

    With \(m_i\) the mean of problem i's scored answers and P problems that have any,

    \[ \bar m = \tfrac1P \sum_i m_i, \qquad
       \mathrm{SE} = \sqrt{\tfrac{1}{P(P-1)} \sum_i (m_i - \bar m)^2}. \]

    Answers to one problem succeed and fail together, so problems are the independent units: the
    standard error is clustered by problem (Miller 2024, https://arxiv.org/abs/2411.00640) and the
    95 % interval is the percentile bootstrap over problems. Where every problem has the same mean,
    such as 0, both are of width zero although the truth is not that certain.

    Args:
        scores: One sequence of scores per problem; None is an answer that could not be scored. It
            is left out and counted, never taken for a zero.
        seed: Seed of the bootstrap; the same one gives the same interval.
        resamples: Number of bootstrap resamples.

    Returns:
        The estimate.

    Raises:
        ValueError: If there are no problems, or a score is not finite.
    """
    if not scores:
        raise ValueError("there are no problems to average over")
    scored = [[score for score in row if score is not None] for row in scores]
    if not all(math.isfinite(score) for row in scored for score in row):
        raise ValueError("a score is not finite; an answer without a score is None")
    means = np.array([sum(row) / len(row) for row in scored if row], dtype=np.float64)
    count = len(means)
    low = high = standard_error = math.nan
    if count > 1:
        standard_error = float(means.std(ddof=1) / math.sqrt(count))
        low, high = _bootstrap(means, seed, resamples)
    answers = sum(map(len, scores))
    return Estimate(
        mean=float(means.mean()) if count else math.nan,
        low=low,
        high=high,
        standard_error=standard_error,
        problems=count,
        answers=answers,
        unknown=answers - sum(map(len, scored)),
    )


def _bootstrap(means: np.ndarray, seed: int, resamples: int) -> tuple[float, float]:
    """Percentile interval of the mean of as many problems drawn with replacement."""
    generator = np.random.default_rng(seed)
    drawn = [
        means[generator.integers(len(means), size=(min(_CHUNK, resamples - at), len(means)))].mean(
            1
        )
        for at in range(0, resamples, _CHUNK)
    ]
    low, high = np.percentile(np.concatenate(drawn), INTERVAL)
    return float(low), float(high)
