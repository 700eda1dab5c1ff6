"""Problems of an environment of `verifiers`: a taskset's tasks, which score answers as well."""

from __future__ import annotations

import itertools
from typing import Any

from ctpo.tasks.problem import Problem, Split

PREFIX = "verifiers:"

_TOOLS = "tools of its own, which only its harness can serve; name yours in rollout.tools"


def verifiers_problems(
    source: str, split: Split | None = None, limit: int | None = None
) -> list[Problem]:
    """Make problems of a taskset's tasks, whose rewards need nothing but the conversation.

    They are for the reward `verifiers`, which has the task itself score an answer.

    Args:
        source: `verifiers:ID`, as `verifiers` knows an installed taskset.
        split: What the problems are said to be; a taskset has one part only.
        limit: Most problems.

    Raises:
        ValueError: verifiers is not installed or has no such taskset; or a task has no prompt, or
            needs tools or a machine of its own.
    """
    name = source.removeprefix(PREFIX)
    try:
        from verifiers.v1.utils import loaders
    except ImportError as error:
        raise ValueError(
            f"{source} needs verifiers 0.4, which cannot be imported: {error}; "
            "pip install 'verifiers>=0.4'"
        ) from error
    try:
        taskset = loaders.load_taskset(loaders.taskset_config_type(name)(id=name))
    except (AttributeError, ModuleNotFoundError, TypeError) as error:
        raise ValueError(f"{source}: {error}") from error
    if taskset.toolsets(taskset.config):
        raise ValueError(f"{source} has {_TOOLS}")
    return [_problem(task, name, split or "test") for task in itertools.islice(taskset, limit)]


def _problem(task: Any, source: str, split: Split) -> Problem:  # noqa: ANN401
    data = task.data
    place = f"verifiers:{source}, task {data.idx}"
    if type(task).toolsets(task.config):
        raise ValueError(f"{place}: has {_TOOLS}")
    scorers = (*task.hooks("reward"), *(judge.score for judge in task.plugged_judges()))
    needing = [f.__name__ for f in scorers if "runtime" in f.__code__.co_varnames]
    if needing:
        raise ValueError(f"{place}: {', '.join(needing)} needs a machine of its own to score")
    if not scorers:
        raise ValueError(f"{place}: has no reward")
    if not isinstance(data.prompt, str):
        raise ValueError(f"{place}: its prompt is {data.prompt!r:.100}; it must be a text")
    messages = [{"role": "user", "content": data.prompt}]
    if data.system_prompt:
        messages.insert(0, {"role": "system", "content": data.system_prompt})
    return Problem(
        id=data.id or f"{source}-{data.idx}",
        messages=tuple(messages),
        answer="",
        source=source,
        split=split,
        row={"task": task},
    )
