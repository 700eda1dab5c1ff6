"""The problems a recipe names, with what its policy is told."""

from __future__ import annotations

from typing import Literal

from ctpo.tasks import BENCHMARKS, Problem, generate, load_benchmark, read_problems
from ctpo.training.policy import instruct
from ctpo.training.recipe import Recipe


def problems(recipe: Recipe) -> tuple[list[Problem], list[Problem]]:
    """Return the problems to train on and those held out.

    Raises:
        FileNotFoundError: A file is not there, or a benchmark cannot be reached.
        ValueError: A file cannot be read, or has too few problems for one batch.
    """
    data = recipe.data
    train = _read(recipe, data.train, data.train_problems, "train")
    if len(train) < recipe.rollout.prompts_per_batch:
        raise ValueError(
            f"{data.train} has {len(train)} problems; rollout.prompts_per_batch is "
            f"{recipe.rollout.prompts_per_batch}"
        )
    held_out = _read(recipe, data.held_out, data.held_out_problems, "held-out")
    told = recipe.system_message
    return [instruct(p, told) for p in train], [instruct(p, told) for p in held_out]


def benchmark_names(source: str) -> list[str]:
    """Return the benchmarks that a source names, each perhaps `name=path`; none if it is no list.

    Args:
        source: A field such as `data.held_out`.
    """
    names = [name.strip() for name in source.split(",")]
    known = [name.partition("=")[0] in BENCHMARKS for name in names]
    return names if all(known) else []


def _read(
    recipe: Recipe, source: str, count: int, split: Literal["train", "held-out"]
) -> list[Problem]:
    if source == "builtin":
        # Held-out problems do not depend on the run's seed, so that runs can be compared.
        return generate(
            count,
            seed=recipe.seed if split == "train" else 0,
            hard_fraction=recipe.data.hard_fraction,
            split=split,
        )
    if names := benchmark_names(source):
        return [p for name in names for p in load_benchmark(name, limit=count).problems]
    return read_problems(source, limit=count)
