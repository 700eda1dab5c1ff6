"""How good is an answer: our grader or a function of yours, alone or several with weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ctpo.grading import grade
from ctpo.grading.rewards import check_reward
from ctpo.references import find_function
from ctpo.tasks import Problem

# (trajectory, problem) -> the reward, or None where nobody can tell. Of a server's answers there is
# a `Transcript` instead, which has the same texts and results and no tokens.
Reward = Callable[[Any, Problem], float | None]


def by_grader(trajectory: Any, problem: Problem) -> float | None:  # noqa: ANN401
    """Return 1 for a right answer, 0 for a wrong one, None where `grading.grade` cannot tell."""
    return grade(trajectory.assistant_text, problem.golds).score


REWARDS: Mapping[str, Reward | str] = MappingProxyType(
    {
        "grade": by_grader,
        "reasoning-gym": "ctpo.evaluation.environments:reasoning_gym",
        "verifiers": "ctpo.evaluation.environments:verifiers",
    }
)
"""Rewards of ours by name: functions, or references to those that need a library."""


def reward_named(name: str, field: str = "rewards") -> Reward:
    """Return a reward of ours by name, or one of yours by `module:name`.

    Args:
        name: The name.
        field: What it is called in messages.

    Raises:
        ValueError: There is none, or it is no function of (trajectory, problem).
    """
    ours = REWARDS.get(name, name)
    if not isinstance(ours, str):
        return ours
    return find_function(ours, field, ("trajectory", "problem"), tuple(REWARDS))


class Rewards:
    """Several rewards, added with weights.

    An answer of which one of them cannot tell has no reward, and so none has an answer with a
    program or a tool that failed through no fault of its own: what it could have been is unknown.

    Args:
        weights: Weights by name. The first says how good an answer is, which is what evaluations
            average, without its weight; the others shape the training.
        field: What they are called in messages.

    Attributes:
        parts: By name, what each gave to the answers of the last call.

    Raises:
        ValueError: There is none, one cannot be found, or a weight is 0 or not finite.
    """

    def __init__(self, weights: Mapping[str, float], field: str = "rewards") -> None:
        if not weights:
            raise ValueError(f"{field} is empty; name at least one, e.g. grade = 1.0")
        for name, weight in weights.items():
            if not math.isfinite(weight) or weight == 0:
                raise ValueError(
                    f"{field}.{name} is {weight}; a weight must be finite and not 0, or the "
                    "function would have no effect"
                )
        self._weights = dict(weights)
        self._functions = {name: reward_named(name, f"{field}.{name}") for name in weights}
        self.parts: dict[str, list[float | None]] = {}

    @property
    def first(self) -> Reward | None:
        """The first one, checked; None if that is our grader, which tells more than a number."""
        name, function = next(iter(self._functions.items()))
        if function is by_grader:
            return None
        return lambda trajectory, problem: self._one(name, trajectory, problem)

    def __call__(
        self, trajectories: Sequence[Any], problems: Sequence[Problem]
    ) -> list[float | None]:
        """Return the reward of each answer.

        Raises:
            TypeError: A function returned no number.
            ValueError: A function returned a number that is not finite. Function and problem are
                named.
        """
        self.parts = {
            name: [self._one(name, *both) for both in zip(trajectories, problems, strict=True)]
            for name in self._functions
        }
        return [self._sum(values) for values in zip(*self.parts.values(), strict=True)]

    def means(self) -> dict[str, float | None]:
        """Return the mean of each over the last call, if there are several, as metrics."""
        if len(self.parts) == 1:
            return {}
        told = {n: [v for v in values if v is not None] for n, values in self.parts.items()}
        return {f"rewards/{n}": sum(v) / len(v) if v else None for n, v in told.items()}

    def _one(self, name: str, trajectory: Any, problem: Problem) -> float | None:  # noqa: ANN401
        if trajectory.sandbox_failed:
            return None
        try:
            value = self._functions[name](trajectory, problem)
        except Exception as error:
            error.add_note(f"in the reward {name!r}, for the problem {problem.id!r}")
            raise
        return check_reward(value, name, f"the problem {problem.id!r}")

    def _sum(self, values: Sequence[float | None]) -> float | None:
        total = 0.0
        for value, weight in zip(values, self._weights.values(), strict=True):
            if value is None:
                return None
            total += weight * value
        return total
