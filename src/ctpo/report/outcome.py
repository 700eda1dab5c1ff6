"""Whether a run worked: the change of its held-out accuracy, with an interval, in a sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ctpo.intervals import mean_interval
from ctpo.report.reading import Evaluation, Run, Score
from ctpo.report.tables import checks, signed

_RESAMPLES = 4_000
_NORMAL = 1.959964  # two-sided 95 %


@dataclass(frozen=True)
class Change:
    """The difference of two accuracies with its 95 % interval, as shares.

    Attributes:
        value: Second less first.
        low: Lower end.
        high: Upper end.
        paired: Whether the same problems were compared one by one. If not, the two are taken for
            independent, which is too wide where the problems are the same.
    """

    value: float
    low: float
    high: float
    paired: bool

    @property
    def direction(self) -> Literal["up", "down", "open"]:
        """Which side of nothing the whole interval is on."""
        return "up" if self.low > 0 else "down" if self.high < 0 else "open"

    def __str__(self) -> str:
        low, high = signed(100 * self.low, 1), signed(100 * self.high, 1)
        return f"{signed(100 * self.value, 1)} points (95 % interval {low} to {high})"


def change(first: Evaluation, second: Evaluation) -> Change | None:
    """Return how sampled accuracy differs; None where one has none.

    Problem by problem where both recorded the same problems, by a bootstrap over them; else from
    the two clustered standard errors.
    """
    if "sampled" not in first.decodings or "sampled" not in second.decodings:
        return None
    before, after = (one.decodings["sampled"].overall for one in (first, second))
    names = first.by_problem.keys() & second.by_problem.keys()
    if len(names) > 1 and len(names) == before.problems == after.problems:
        differences = [second.by_problem[n] - first.by_problem[n] for n in sorted(names)]
        found = mean_interval(differences, _RESAMPLES, seed=0)
        return Change(found.value, found.low, found.high, paired=True)
    half = _NORMAL * math.hypot(before.standard_error, after.standard_error)
    difference = after.mean - before.mean
    return Change(difference, difference - half, difference + half, paired=False)


def verdict(run: Run) -> str:
    """Say in a sentence or two whether the run worked."""
    evaluations = list(run.evaluations.values())
    wanted = run.settings.get("optimization.batches")
    where = f"batch {run.batch}" + (f" of {wanted}" if wanted else "")
    begun = {
        "running": f"Still running, at {where}. ",
        "stopped": f"Stopped at {where}, before its final evaluation. ",
    }.get(run.state, "")
    found = change(evaluations[0], evaluations[-1]) if len(evaluations) > 1 else None
    if found is None or math.isnan(found.value):
        if "start" not in run.evaluations:
            return f"{begun}Whether it worked cannot be said: it was not evaluated at the start."
        return f"{begun}Whether it worked cannot be said: it was evaluated only at the start."
    first, last = (one.decodings["sampled"].overall for one in (evaluations[0], evaluations[-1]))
    said = {
        "up": "So far it works" if begun else "It worked",
        "down": "It got worse",
        "open": "Whether it helped cannot be told from so few problems",
    }[found.direction]
    numbers = f"held-out accuracy went from {first.percent} to {last.percent}, {found}"
    return f"{begun}{said}: {numbers}.{_trouble(run)}"


def _trouble(run: Run) -> str:
    failed = [check.name for check in checks(run) if not check.passed]
    return f" But mind the checks that failed: {', '.join(failed)}." if failed else ""


def latest(run: Run) -> Score | None:
    """Return the sampled score of the last evaluation."""
    points = run.scores("sampled")
    return points[-1][1].overall if points else None
