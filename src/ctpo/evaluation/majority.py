"""The majority vote over k of n answers, exactly."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

_RESAMPLES = 400


@dataclass(frozen=True)
class Vote:
    """What an answer says.

    Attributes:
        answer: The same for equal answers; None where the response commits to none.
        right: Whether it is right.
    """

    answer: str | None
    right: bool


def majority(votes: Sequence[Vote], k: int) -> float:
    """Returns the chance that the most frequent of k of the answers is right, ties shared.

    Args:
        votes: All n answers to a problem.
        k: How many are drawn, at most n.
    """
    right, wrong, silent = _tally(votes)
    return _majority(right, tuple(sorted(wrong)), silent, k)


def majority_variance(votes: Sequence[Vote], k: int, seed: int) -> float:
    """Returns the sampling variance of `majority`.

    With k = n it is that of the vote over n answers drawn with replacement (bootstrap), times
    n/(n-1); with k < n
    the estimate is an average over subsets, for which leaving out one answer at a time (jackknife)
    is exact enough and repeats.

    Args:
        votes: All n answers to a problem.
        k: How many are drawn.
        seed: Of the bootstrap.
    """
    right, wrong, silent = _tally(votes)
    n = len(votes)
    if k < n:
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
    if n == 1:
        return math.nan
    counts = np.array([right, silent, *wrong])
    drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=_RESAMPLES)
    best_wrong = drawn[:, 2:].max(1, initial=0)
    tied = (drawn[:, 2:] == best_wrong[:, None]).sum(1) + 1
    ours = drawn[:, 0]
    won = np.where(ours > best_wrong, 1.0, np.where(ours == best_wrong, 1 / tied, 0.0))
    return float(np.where(ours == 0, 0.0, won).var()) * n / (n - 1)


def _tally(votes: Sequence[Vote]) -> tuple[int, list[int], int]:
    """Right answers, wrong ones by answer, and silent ones. All right answers are one."""
    right = sum(vote.right for vote in votes)
    wrong = Counter(v.answer for v in votes if not v.right and v.answer is not None)
    return right, list(wrong.values()), len(votes) - right - sum(wrong.values())


@cache
def _majority(right: int, wrong: tuple[int, ...], silent: int, k: int) -> float:
    """Counts the k-subsets by their right answers and by the wrong ones tied with these."""
    total = right + sum(wrong) + silent
    won = 0.0
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
                subsets = math.comb(right, ours) * number * math.comb(silent, rest)
                won += subsets / (1 + tied)
    return won / math.comb(total, k)
