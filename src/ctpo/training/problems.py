"""The problems a recipe names, with what its policy is told."""

from __future__ import annotations

from typing import Any, Literal

from ctpo.tasks import BENCHMARKS, BUILTIN, Problem, load_benchmark, read_problems
from ctpo.training.policy import instruct
from ctpo.training.recipe.recipe import Recipe


def problems(recipe: Recipe) -> tuple[list[Problem], list[Problem]]:
    """Return the problems to train on and those held out.

    Raises:
        FileNotFoundError: A file is not there, or a benchmark cannot be reached.
        ValueError: A file cannot be read, or has too few problems for one batch.
    """
    data = recipe.data

    def read(field: str, count: int, split: str) -> list[Problem]:
        source = getattr(data, field)
        more: dict[str, Any] = {"field": f"data.{field}"}
        if source in BUILTIN:
            more |= {"split": split, "hard_fraction": data.hard_fraction}
            more |= {"seed": recipe.seed} if split == "train" else {}
        return problems_of_source(source, count, told=recipe.system_message, **more)

    train = read("train", data.train_problems, "train")
    if len(train) < recipe.rollout.prompts_per_batch:
        raise ValueError(
            f"{data.train} has {len(train)} problems; rollout.prompts_per_batch is "
            f"{recipe.rollout.prompts_per_batch}"
        )
    return train, read("held_out", data.held_out_problems, "held-out")


def problems_of_source(
    source: str,
    count: int | None = None,
    split: str | None = None,
    *,
    seed: int | None = None,
    hard_fraction: float = 0.0,
    told: str | None = None,
    unique: bool = False,
    field: str = "data",
) -> list[Problem]:
    """Return the problems of a source.

    Args:
        source: `builtin`, `builtin-chain`, a Parquet or JSONL file, a Hub name, benchmarks, or
            `module:name`.
        count: Most problems, of each benchmark; None for all, or 2,000 built-in ones.
        split: Which part: of built-in problems `train`, if not said, or `held-out`, which does not
            depend on the seed, so that runs can be compared; else as `read_problems` takes it.
        seed: Of built-in training problems; 0, if not said.
        hard_fraction: Share of built-in problems with three-digit operands.
        told: System message of problems that have none.
        unique: Leave out rows of a file or a Hub data set that repeat an earlier one.
        field: What messages call `source`.

    Raises:
        FileNotFoundError: A file is not there, or a benchmark cannot be reached.
        ValueError: A file cannot be read, or an argument has no effect.
    """
    if hard_fraction and source not in BUILTIN:
        raise ValueError(f"hard_fraction is {hard_fraction}; it has an effect on builtin only")
    if seed is not None and source not in BUILTIN:
        raise ValueError(f"seed is {seed}; it has an effect on builtin only")
    names = benchmark_names(source)
    if unique and (names or source in BUILTIN):
        raise ValueError("unique has an effect on a file or a Hub data set only")
    if split is not None and names:
        raise ValueError(f"split is {split!r}; a benchmark has only one")
    if source in BUILTIN:
        part: Literal["train", "held-out"] = "held-out" if split == "held-out" else "train"
        if split not in (None, part):
            raise ValueError(f"split is {split!r}; of {source} it must be train or held-out")
        if seed is not None and part == "held-out":
            raise ValueError(f"seed is {seed}; built-in held-out problems do not depend on it")
        found = BUILTIN[source](
            2000 if count is None else count,
            seed=seed or 0,
            hard_fraction=hard_fraction,
            split=part,
        )
    elif names:
        found = [p for name in names for p in load_benchmark(name, limit=count).problems]
    else:
        found = read_problems(source, split, count, unique=unique, field=field)
    return [instruct(problem, told) for problem in found]


def benchmark_names(source: str) -> list[str]:
    """Return the benchmarks that a source names, each perhaps `name=path`; none if it is no list.

    Args:
        source: A field such as `data.held_out`.
    """
    names = [name.strip() for name in source.split(",")]
    known = [name.partition("=")[0] in BENCHMARKS for name in names]
    return names if all(known) else []
