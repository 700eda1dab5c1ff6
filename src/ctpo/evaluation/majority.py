"""The majority vote over k of n answers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np

# Answers to a problem whose subsets are counted one by one: 64 take a tenth of a second.
MOST_EXACT = 64
_SUBSETS = 10_000
_RESAMPLES = 400
_OUTER, _INNER = 100, 50


@dataclass(frozen=True)
class Vote:
    """What an answer says.

    Attributes:
        answer: The same for equal answers; None where the response commits to none.
        right: Whether it is right.
    """

    answer: str | None
    right: bool


def majority(votes: Sequence[Vote], k: int, seed: int = 0) -> float:
    """Returns the chance that the most frequent of k of the answers is right, ties shared.

    Over all choices of k, exactly; of more than 64 answers, whose subsets take too long to count,
    over 10,000 choices drawn at random.

    Args:
        votes: All n answers to a problem.
        k: How many are drawn, at most n.
        seed: Of the draws.
    """
    right, wrong, silent = _tally(votes)
    counts = np.array([right, silent, *wrong])
    if k == len(votes):
        return float(_won(counts[None])[0])
    if len(votes) <= MOST_EXACT or k == 1:
        return _majority(right, tuple(sorted(wrong)), silent, k)
    return float(_won(_drawn(np.random.default_rng(seed), counts, k, _SUBSETS)).mean())


def majority_variance(votes: Sequence[Vote], k: int, seed: int) -> float:
    """Returns the sampling variance of `majority`.

    With k = n it is that of the vote over n answers drawn with replacement (bootstrap), times
    n/(n-1). With k < n the estimate is an average over subsets, for which leaving out one answer at
    a time (jackknife) is exact enough and repeats; of more than 64 answers it is the bootstrap
    again, less what the drawing of subsets adds to it.

    Args:
        votes: All n answers to a problem.
        k: How many are drawn.
        seed: Of the bootstrap.
    """
    right, wrong, silent = _tally(votes)
    n = len(votes)
    if n == 1:
        return math.nan
    counts = np.array([right, silent, *wrong])
    random = np.random.default_rng(seed)
    if k == n:
        drawn = random.multinomial(n, counts / n, size=_RESAMPLES)
        return float(_won(drawn).var()) * n / (n - 1)
    if n > MOST_EXACT and k > 1:
        inner = [
            _won(_drawn(random, again, k, _INNER))
            for again in random.multinomial(n, counts / n, size=_OUTER)
        ]
        between = np.var([won.mean() for won in inner], ddof=1)
        within = np.mean([won.var(ddof=1) for won in inner]) / _INNER
        return float(max(0.0, between - within)) * n / (n - 1)
    left_out = []
    for count, rest in (
        (right, lambda: _majority(right - 1, tuple(sorted(wrong)), silent, k)),
        (silent, lambda: _majority(right, tuple(sorted(wrong)), silent - 1, k)),
    ):
        if count:
            left_out += [rest()] * count
    for index, count in enumerate(wrong):
        others = [c - (i == index) for i, c in enumerate(wrong)]
        left_out += [_majority(right, tuple(sorted(filter(None, others))), silent, k)] * count
    mean = sum(left_out) / n
    return (n - 1) / n * sum((value - mean) ** 2 for value in left_out)


def _drawn(random: np.random.Generator, counts: np.ndarray, k: int, size: int) -> np.ndarray:
    """Subsets of k as counts of right, silent and each wrong answer; shape [size, kinds]."""
    return random.multivariate_hypergeometric(counts, k, size=size, method="marginals")


def _won(drawn: np.ndarray) -> np.ndarray:
    """Our share of each vote, from counts of right, silent and each wrong answer."""
    best_wrong = drawn[:, 2:].max(1, initial=0)
    tied = (drawn[:, 2:] == best_wrong[:, None]).sum(1) + 1
    ours = drawn[:, 0]
    won = np.where(ours > best_wrong, 1.0, np.where(ours == best_wrong, 1 / tied, 0.0))
    return np.where(ours == 0, 0.0, won)


def _tally(votes: Sequence[Vote]) -> tuple[int, list[int], int]:
    """Right answers, wrong ones by answer, and silent ones. All right answers are one.

    Sorted, so that draws and sums do not depend on the order in which answers came.
    """
    right = sum(vote.right for vote in votes)
    wrong = Counter(v.answer for v in votes if not v.right and v.answer is not None)
    return right, sorted(wrong.values()), len(votes) - right - sum(wrong.values())


@cache
def _majority(right: int, wrong: tuple[int, ...], silent: int, k: int) -> float:
    """Counts the k-subsets by their right answers and by the wrong ones tied with these."""
    total = right + sum(wrong) + silent
    won: Counter[int] = Counter()  # subsets by the number of wrong answers tied with ours
    for ours in range(1, min(right, k) + 1):
        # (answers taken, wrong answers tied with ours) -> number of ways
        ways: dict[tuple[int, int], int] = {(0, 0): 1}
        for count in wrong:
            grown: Counter[tuple[int, int]] = Counter()
            for (taken, tied), number in ways.items():
                for more in range(min(count, ours, k - ours - taken) + 1):
                    key = (taken + more, tied + (more == ours))
                    grown[key] += number * math.comb(count, more)
            ways = grown
        for (taken, tied), number in ways.items():
            rest = k - ours - taken
            if rest <= silent:
                won[tied] += math.comb(right, ours) * number * math.comb(silent, rest)
    subsets = math.comb(total, k)
    return float(sum(Fraction(number, (1 + tied) * subsets) for tied, number in won.items()))
