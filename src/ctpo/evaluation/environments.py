"""Answers graded by the libraries their problems come from."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ctpo.grading import last_box
from ctpo.grading.box import LongBoxError, UnclosedBoxError
from ctpo.tasks import Problem


def reasoning_gym(trajectory: Any, problem: Problem) -> float | None:  # noqa: ANN401
    """Return reasoning-gym's score of what stands in the last box, 0 without one.

    Some families raise on answers that they cannot read. That answer is wrong if the family can
    read a right one; if it cannot, or has none to try, nobody can tell.

    Args:
        trajectory: The answer.
        problem: One that `tasks.reasoning_gym` made.

    Raises:
        ValueError: The problem is from elsewhere.
    """
    if "metadata" not in problem.row:
        raise ValueError(
            f"the problem {problem.id!r} is not reasoning-gym's, which alone can grade its own"
        )
    try:
        said = last_box(trajectory.assistant_text)
    except UnclosedBoxError:
        return 0.0
    except LongBoxError:
        return None
    if not said:
        return 0.0
    score = _family(problem.source)
    try:
        return float(score(said, problem.row))
    except Exception:  # whatever a family of a hundred may raise
        return 0.0 if _reads(score, problem) else None


def _reads(score: Callable[..., float], problem: Problem) -> bool:
    gold = problem.row["answer"]
    try:
        return gold is not None and score(gold, problem.row) > 0
    except Exception:
        return False


@functools.cache
def _family(name: str) -> Callable[..., float]:
    from reasoning_gym.factory import create_dataset

    return create_dataset(name, size=1, seed=0).score_answer
