"""Answers graded by the libraries their problems come from."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import Any

from ctpo.grading import last_box
from ctpo.grading.box import LongBoxError, UnclosedBoxError
from ctpo.tasks import Problem

logger = logging.getLogger(__name__)


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


def verifiers(trajectory: Any, problem: Problem) -> float | None:  # noqa: ANN401
    """Return the sum of a verifiers task's weighted rewards for a conversation.

    None where the task fails while it scores, as where a judge cannot be reached.

    Args:
        trajectory: The answer; the task sees its turns as messages.
        problem: One that `tasks.verifiers` made.

    Raises:
        ValueError: The problem is from elsewhere.
    """
    if "task" not in problem.row:
        raise ValueError(
            f"the problem {problem.id!r} is of no taskset of verifiers, which alone grades its own"
        )
    import verifiers.v1 as vf
    from verifiers.v1.graph import MessageNode
    from verifiers.v1.trace import AgentInfo, Trace, TraceTask

    task = problem.row["task"]
    said: list[Any] = [
        vf.SystemMessage(content=m["content"])
        if m["role"] == "system"
        else vf.UserMessage(content=m["content"])
        for m in problem.messages
    ]
    asked = len(said)
    for turn in trajectory.turns:
        message = vf.AssistantMessage if turn.role == "assistant" else vf.UserMessage
        said.append(message(content=turn.text))
    nodes = [
        MessageNode(
            message=message,
            parent=None if index == 0 else index - 1,
            sampled=index >= asked and isinstance(message, vf.AssistantMessage),
        )
        for index, message in enumerate(said)
    ]
    about = TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)
    trace = Trace(task=about, agent=AgentInfo(config=vf.AgentConfig()), nodes=nodes)
    try:
        asyncio.run(task.score(trace))
    except vf.TaskError as error:
        logger.warning("the problem %r could not be scored: %s", problem.id, error)
        return None
    return float(trace.reward)
