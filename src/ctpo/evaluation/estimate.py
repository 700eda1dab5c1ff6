"""A figure over problems, with its two errors and its interval."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ctpo.intervals import Interval, mean_interval

RESAMPLES = 10_000


@dataclass(frozen=True)
class Estimate:
    r"""A mean over problems with its uncertainty, which has two sources and hence two names.

    Attributes:
        mean: Mean over problems of each problem's value \(m_i\), each problem weighing the same;
            NaN if nothing was scored.
        low: Lower end of the 95 % interval, a percentile bootstrap over problems; NaN below two
            scored problems.
        high: Upper end of it.
        sampling_error: Standard error over samples with the problems fixed,
            \(\sqrt{\sum_i \operatorname{Var}(m_i)}/P\): how far another run of the same model on
            the same problems would come out elsewhere. A problem with one scored sample, which
            shows no variance, is given the mean variance of the others; NaN if there are none.
        clustered_error: Standard error over problems,
            \(\sqrt{\sum_i (m_i-\bar m)^2/(P(P-1))}\), clustered because the answers to one problem
            succeed and fail together (Miller 2024, https://arxiv.org/abs/2411.00640): how far the
            model would come out elsewhere on other problems of the kind. It holds the sampling
            error too. NaN below two scored problems.
        problems: Problems the mean is over: those with enough scored answers.
        answers: Answers given, scored or not.
        unknown: Answers among them that could not be scored. They enter no mean.
    """

    mean: float
    low: float
    high: float
    sampling_error: float
    clustered_error: float
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


def estimate(
    values: Sequence[float],
    variances: Sequence[float],
    *,
    answers: int,
    unknown: int,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Averages the values of problems.

    Args:
        values: One per problem that has one.
        variances: The sampling variance of each; NaN where it is not known.
        answers: Answers given in all.
        unknown: Answers among them without a score.
        seed: Of the bootstrap.
        resamples: Of the bootstrap.
    """
    count = len(values)
    known = [variance for variance in variances if not math.isnan(variance)]
    found, clustered = Interval(values[0] if count else math.nan, math.nan, math.nan), math.nan
    if count > 1:
        found = mean_interval(values, resamples, seed)
        clustered = float(np.std(values, ddof=1) / math.sqrt(count))
    return Estimate(
        mean=found.value,
        low=found.low,
        high=found.high,
        sampling_error=math.sqrt(sum(known) / len(known) / count) if known else math.nan,
        clustered_error=clustered,
        problems=count,
        answers=answers,
        unknown=unknown,
    )


def mean_and_variance(scores: Sequence[float]) -> tuple[float, float]:
    """Return the mean of a problem's scores and its sampling variance, NaN of a single score."""
    mean = sum(scores) / len(scores)
    if len(scores) == 1:
        return mean, math.nan
    return mean, sum((score - mean) ** 2 for score in scores) / (len(scores) - 1) / len(scores)
