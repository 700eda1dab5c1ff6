"""Two models on the same problems, compared problem by problem."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ctpo.evaluation.estimate import RESAMPLES, Estimate, estimate


@dataclass(frozen=True)
class Pair:
    """One problem in both runs.

    Attributes:
        problem_id: The problem.
        first: Mean score in the first run.
        second: Mean score in the second.
    """

    problem_id: str
    first: float
    second: float

    @property
    def difference(self) -> float:
        """Second minus first."""
        return self.second - self.first


@dataclass(frozen=True)
class Comparison:
    """What changed from the first run to the second.

    Attributes:
        first: Mean over the common problems in the first run.
        second: The same in the second.
        difference: Second minus first, with both errors and its interval. Paired: what makes a
            problem hard for both runs cancels.
        pairs: Every problem scored in both, largest loss first.
        better: Problems where the second is better.
        worse: Problems where it is worse.
        left_out: Problems scored in one run only.
    """

    first: float
    second: float
    difference: Estimate
    pairs: tuple[Pair, ...]
    better: int
    worse: int
    left_out: tuple[str, ...]


Scored = Mapping[str, Sequence[float | None]]


def compare(first: Scored, second: Scored, *, seed: int = 0) -> Comparison:
    r"""Compares avg@k of two runs on the problems they share.

    With \(d_i\) the difference of problem i's means, the clustered error is that of the mean of the
    \(d_i\) over problems, the sampling error
    \(\sqrt{\sum_i (s_{1i}^2/n_{1i} + s_{2i}^2/n_{2i})}/P\), and the interval a percentile
    bootstrap over problems.

    Args:
        first: Scores by problem; None is an answer that could not be scored.
        second: The same of the other run.
        seed: Of the bootstrap.

    Raises:
        ValueError: If no problem was scored in both.
    """
    means = [
        {name: [s for s in row if s is not None] for name, row in run.items()}
        for run in (first, second)
    ]
    common = [name for name in first if means[0][name] and means[1].get(name)]
    if not common:
        raise ValueError("the two runs have no scored problem in common")
    pairs = [Pair(name, *(_mean(run[name]) for run in means)) for name in common]
    variances = [sum(_variance(run[name]) for run in means) for name in common]
    answers = sum(len(run[name]) for run in (first, second) for name in common)
    scored = sum(len(run[name]) for run in means for name in common)
    return Comparison(
        first=_mean([pair.first for pair in pairs]),
        second=_mean([pair.second for pair in pairs]),
        difference=estimate(
            [pair.difference for pair in pairs],
            variances,
            answers=answers,
            unknown=answers - scored,
            seed=seed,
            resamples=RESAMPLES,
        ),
        pairs=tuple(sorted(pairs, key=lambda pair: pair.difference)),
        better=sum(pair.difference > 0 for pair in pairs),
        worse=sum(pair.difference < 0 for pair in pairs),
        left_out=tuple(sorted({*first, *second} - set(common))),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _variance(scores: Sequence[float]) -> float:
    if len(scores) < 2:
        return math.nan
    mean = _mean(scores)
    return sum((score - mean) ** 2 for score in scores) / (len(scores) - 1) / len(scores)
