"""Two evaluations compared: problem by problem, and what differs in their settings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ctpo.evaluation.answers import Answer
from ctpo.evaluation.estimate import Estimate, estimate, mean_and_variance


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
    scored = [
        {name: [s for s in row if s is not None] for name, row in run.items()}
        for run in (first, second)
    ]
    common = sorted(name for name in first if scored[0][name] and scored[1].get(name))
    if not common:
        raise ValueError("the two runs have no scored problem in common")
    found = [[mean_and_variance(run[name]) for run in scored] for name in common]
    pairs = [
        Pair(name, before, after)
        for name, ((before, _), (after, _)) in zip(common, found, strict=True)
    ]
    answers = sum(len(run[name]) for run in (first, second) for name in common)
    return Comparison(
        first=fmean(pair.first for pair in pairs),
        second=fmean(pair.second for pair in pairs),
        difference=estimate(
            [pair.difference for pair in pairs],
            [sum(variance for _, variance in both) for both in found],
            answers=answers,
            unknown=answers - sum(len(run[name]) for run in scored for name in common),
            seed=seed,
        ),
        pairs=tuple(sorted(pairs, key=lambda pair: pair.difference)),
        better=sum(pair.difference > 0 for pair in pairs),
        worse=sum(pair.difference < 0 for pair in pairs),
        left_out=tuple(sorted({*first, *second} - set(common))),
    )


def compare_answers(
    first: Sequence[Answer], second: Sequence[Answer], seed: int = 0
) -> dict[str, Comparison]:
    """Compare two evaluations, benchmark by benchmark.

    Raises:
        ValueError: They have no benchmark, or in one of them no problem, in common; or a problem
            of the same name has another gold answer.
    """
    runs = []
    golds: dict[tuple[str, str], str] = {}
    for answers in (first, second):
        run: dict[str, dict[str, list[float | None]]] = {}
        for a in answers:
            run.setdefault(a.benchmark, {}).setdefault(a.problem_id, []).append(a.score)
            gold = golds.setdefault((a.benchmark, a.problem_id), a.gold)
            if gold != a.gold:
                raise ValueError(
                    f"{a.benchmark}: {a.problem_id} is not the same problem in both: its answer is "
                    f"{gold!r} in one and {a.gold!r} in the other"
                )
        runs.append(run)
    common = [name for name in runs[0] if name in runs[1]]
    if not common:
        raise ValueError(
            f"the evaluations have no benchmark in common: {', '.join(runs[0]) or 'none'} and "
            f"{', '.join(runs[1]) or 'none'}"
        )
    return {name: compare(runs[0][name], runs[1][name], seed=seed) for name in common}


def differing_settings(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Say what else changed between two evaluations, beside the model.

    Args:
        first: The `settings.json` of one.
        second: That of the other.
    """
    return [
        f"{name}: {first.get(name)!r} → {second.get(name)!r}"
        for name in {**first, **second}
        if first.get(name) != second.get(name)
    ]


def missing(answers: Sequence[Answer]) -> str:
    """Say which answers of an evaluation its server did not give, or not whole; "" if none."""
    ended = Counter(answer.finish_reason for answer in answers)
    words = {
        "failed": "failed (`ctpo eval` as before asks for them again)",
        "filter": "were filtered",
        "context": "did not fit the context",
    }
    found = [f"{ended[end]} {said}" for end, said in words.items() if ended[end]]
    return f"of {len(answers)} answers {', '.join(found)}" if found else ""


def comparison_markdown(comparison: Comparison, name: str) -> str:
    """Return a paired comparison as text: the difference, then every problem that changed."""
    found = comparison.difference
    lines = [
        f"**{name}**: {comparison.first:.1%} → {comparison.second:.1%}, "
        f"difference {100 * found.mean:+.1f} points, "
        f"95 % interval {_points(found.low, '+')} to {_points(found.high, '+')}; "
        f"± {_points(found.sampling_error)} over samples / ± {_points(found.clustered_error)} "
        f"clustered over {found.problems} problems. Better on {comparison.better}, worse on "
        f"{comparison.worse}; {len(comparison.left_out)} problems in one run only.",
        "",
        "| problem | first | second | difference |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {pair.problem_id} | {pair.first:.1%} | {pair.second:.1%} | {pair.difference:+.1%} |"
        for pair in comparison.pairs
        if pair.difference
    ]
    return "\n".join(lines) + "\n"


def _points(value: float, sign: str = "") -> str:
    """A number of percentage points, or a dash where the data do not tell."""
    return "–" if math.isnan(value) else f"{100 * value:{sign}.1f}"
