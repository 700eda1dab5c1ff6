"""avg@k, pass@k and maj@k of sampled answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

from ctpo.evaluation.estimate import RESAMPLES, Estimate, estimate, mean_and_variance
from ctpo.evaluation.majority import Vote, majority, majority_variance

Scores = Sequence[Sequence[float | None]]


def avg_at_k(scores: Scores, *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    r"""Estimates avg@k: the mean score of k answers to each problem.

    With \(m_i\) the mean of problem i's \(n_i\) scored answers and \(s_i^2\) their variance, the
    sampling error is \(\sqrt{\sum_i s_i^2/n_i}/P\); `Estimate` has the other. Where every problem
    has the same mean, such as 0, both errors are zero although the truth is not that certain.

    Args:
        scores: One sequence of scores per problem; None is an answer that could not be scored. It
            is left out and counted, never taken for a zero.
        seed: Seed of the bootstrap; the same one gives the same interval.
        resamples: Number of bootstrap resamples.

    Raises:
        ValueError: If there are no problems, or a score is not finite.
    """
    scored = _scored(scores)
    found = [mean_and_variance(row) for row in scored if row]
    values, variances = [mean for mean, _ in found], [variance for _, variance in found]
    return _estimate(scores, scored, values, variances, seed, resamples)


def pass_at_k(scores: Scores, k: int, *, seed: int = 0, resamples: int = RESAMPLES) -> Estimate:
    r"""Estimates pass@k: the chance that at least one of k answers is right.

    Of n answers of which c are right, \(1 - \binom{n-c}{k}/\binom{n}{k}\), which is unbiased (Chen
    et al. 2021, https://arxiv.org/abs/2107.03374). Its sampling variance is that of the same
    expression under \(c \sim \mathrm{Binomial}(n, c/n)\), which is the bootstrap of the answers
    summed up exactly, times \(n/(n-1)\), which makes it unbiased at k = 1. Problems with fewer than
    k scored answers are left out.

    Args:
        scores: One sequence per problem, of 1, 0 and None for what could not be scored.
        k: Answers drawn.
        seed: Seed of the bootstrap over problems.
        resamples: Number of its resamples.

    Raises:
        ValueError: If there are no problems, a score is neither 0 nor 1, or k is below 1 or above
            the number of answers to every problem.
    """
    _check_k("pass", k, max(map(len, scores), default=0))
    scored = _scored(scores)
    if not all(score in (0, 1) for row in scored for score in row):
        raise ValueError("pass@k is of answers that are right or wrong: a score is neither 0 nor 1")
    counts = [(len(row), int(sum(row))) for row in scored if len(row) >= k]
    values = [_any_right(n, c, k) for n, c in counts]
    return _estimate(
        scores, scored, values, [_pass_variance(n, c, k) for n, c in counts], seed, resamples
    )


def maj_at_k(
    votes: Sequence[Sequence[Vote | None]], k: int, *, seed: int = 0, resamples: int = RESAMPLES
) -> Estimate:
    """Estimates maj@k: the chance that the most frequent of k answers is right.

    Averaged over all choices of k of a problem's answers, exactly up to 64 of them (`majority`). A
    tie counts for the share of the tied answers that are right. Who has no answer does not vote;
    where nobody votes, nothing is right. Of problems with fewer than k answers that could be graded
    none enters.

    Args:
        votes: One sequence per problem; None is an answer that could not be graded.
        k: Answers drawn.
        seed: Of both bootstraps, over problems and over the answers to one, and of the draws.
        resamples: Of the bootstrap over problems.

    Raises:
        ValueError: If there are no problems, or k is below 1 or above the number of answers to
            every problem.
    """
    _check_k("maj", k, max(map(len, votes), default=0))
    graded = [[vote for vote in row if vote is not None] for row in votes]
    rows = [row for row in graded if len(row) >= k]
    return _estimate(
        votes,
        graded,
        [majority(row, k, seed) for row in rows],
        [majority_variance(row, k, seed) for row in rows],
        seed,
        resamples,
    )


def _scored(scores: Scores) -> list[list[float]]:
    if not scores:
        raise ValueError("there are no problems to average over")
    scored = [[score for score in row if score is not None] for row in scores]
    if not all(math.isfinite(score) for row in scored for score in row):
        raise ValueError("a score is not finite; an answer without a score is None")
    return scored


def _estimate(
    given: Sequence[Sequence[object]],
    used: Sequence[Sequence[object]],
    values: list[float],
    variances: list[float],
    seed: int,
    resamples: int,
) -> Estimate:
    answers = sum(map(len, given))
    return estimate(
        values,
        variances,
        answers=answers,
        unknown=answers - sum(map(len, used)),
        seed=seed,
        resamples=resamples,
    )


def _check_k(name: str, k: int, samples: int) -> None:
    if not samples:
        raise ValueError("there are no problems to average over")
    if not 1 <= k <= samples:
        raise ValueError(
            f"{name}@{k} needs k from 1 to {samples}, the number of samples of each problem"
        )


def _any_right(n: int, c: int, k: int) -> float:
    return 1 - math.comb(n - c, k) / math.comb(n, k)


@cache
def _pass_variance(n: int, c: int, k: int) -> float:
    if n == 1:
        return math.nan
    chances = _binomial(n, c / n)
    values = [_any_right(n, x, k) for x in range(n + 1)]
    mean = sum(w * v for w, v in zip(chances, values, strict=True))
    spread = sum(w * (v - mean) ** 2 for w, v in zip(chances, values, strict=True))
    return spread * n / (n - 1)


def _binomial(n: int, p: float) -> list[float]:
    """The chances of 0 to n successes, by logarithms: of n = 2000 the binomials are no floats."""
    if p in (0.0, 1.0):
        return [float(x == n * p) for x in range(n + 1)]
    logs = [
        math.lgamma(n + 1) - math.lgamma(x + 1) - math.lgamma(n - x + 1)
        + x * math.log(p) + (n - x) * math.log1p(-p)
        for x in range(n + 1)
    ]  # fmt: skip
    return [math.exp(log) for log in logs]
