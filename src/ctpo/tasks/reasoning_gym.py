"""Problems of reasoning-gym, a hundred families that make questions and check the answers."""

from __future__ import annotations

from ctpo.tasks.problem import Problem, Split

PREFIX = "reasoning-gym:"

# Questions of a family when nobody says how many.
_USUAL_COUNT = 100
# The n-th question has the seed of the first plus n: held-out questions have seeds of their own.
_FIRST_SEED: dict[str, int] = {"train": 0, "held-out": 1_000_000_000}


def reasoning_gym_problems(
    source: str, split: Split | None = None, limit: int | None = None
) -> list[Problem]:
    """Make problems of reasoning-gym's families, equally many of each, with their usual settings.

    The answer is checked by the family, so they are for the reward `reasoning-gym`.

    Args:
        source: `reasoning-gym:FAMILY`, or several families with commas between.
        split: `train`, or another part, whose questions are made from other seeds. A family with
            few questions may repeat some.
        limit: How many problems in all; 100 of each family if not said.

    Raises:
        ValueError: reasoning-gym is not installed, or has no such family.
    """
    try:
        from reasoning_gym.factory import DATASETS, create_dataset
    except ImportError as error:
        raise ValueError(
            f"{source} needs reasoning-gym, which cannot be imported: {error}; "
            "pip install reasoning-gym"
        ) from error
    names = [name.strip() for name in source.removeprefix(PREFIX).split(",")]
    for name in names:
        if name not in DATASETS or name == "composite":
            known = ", ".join(sorted(set(DATASETS) - {"composite"}))
            raise ValueError(f"reasoning-gym has no family {name!r}; it has {known}")
    part: Split = split or "train"
    count = _USUAL_COUNT * len(names) if limit is None else limit
    seed = _FIRST_SEED.get(part, _FIRST_SEED["held-out"])
    made = {n: create_dataset(n, size=-(-count // len(names)), seed=seed) for n in names}
    problems = []
    for number in range(count):
        index, which = divmod(number, len(names))
        name = names[which]
        entry = made[name][index]
        problems.append(
            Problem(
                id=f"{name}-{seed + index}",
                messages=({"role": "user", "content": entry["question"]},),
                answer=str(entry["answer"] or ""),
                source=name,
                split=part,
                row=entry,
            )
        )
    return problems
