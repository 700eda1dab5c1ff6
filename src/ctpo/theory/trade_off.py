"""What a window buys: the bias it brings and the variance it saves, by policy distance."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from ctpo.objective import PRESETS, RATIOS, Objective
from ctpo.theory.bias import plain, problem
from ctpo.theory.enumeration import World
from ctpo.theory.moments import estimator_moments, on_policy_moments
from ctpo.theory.tables import Table

DISTANCES = (1e-5, 1e-4, 6.5e-4, 3e-3, 1e-2, 3e-2, 1e-1)
# Trajectories per update at which bias and spread are added up.
BATCH = 1024
PROBLEMS = 7


def estimators() -> Iterable[tuple[str, Objective]]:
    """Return the ratios without a window, then the presets, by name."""
    yield from ((f"{ratio}, no window", plain(ratio)) for ratio in RATIOS)
    yield from PRESETS.items()


def trade_off_table(*, terminal: bool, problems: int = PROBLEMS) -> Table:
    """Return bias, variance and RMSE of every preset by policy distance.

    Args:
        terminal: Against ∇J with a sampled reward less J(π_old), one advantage per trajectory; else
            against the token-level gradient with the advantage of π_old.
        problems: Over how many random problems the medians are.
    """
    found: dict[tuple[str, float], list[tuple[float, float, float]]] = {}
    for seed in range(problems):
        case = problem(World(4, 6, ends=True, seed=seed), seed)
        world = case.world
        advantages = case.rewards - case.baseline() if terminal else case.advantages(case.old)
        for kl in DISTANCES:
            new = case.new(kl)
            target = on_policy_moments(world, new, advantages)
            norm = float(target.mean.norm())
            for name, objective in estimators():
                moments = estimator_moments(world, case.old, new, objective, advantages)
                bias = moments.bias(target.mean) / norm
                error = (bias**2 + moments.variance / norm**2 / BATCH) ** 0.5
                relative = moments.variance / target.variance
                found.setdefault((name, kl), []).append((bias, relative, error))
    rows = tuple(
        (name, kl, *map(median, zip(*values, strict=True)), min(values)[0], max(values)[0])
        for (name, kl), values in found.items()
    )
    aim = "∇J, sampled reward" if terminal else "the token-level gradient, A_old"
    return Table(
        "windows-terminal" if terminal else "windows",
        f"Every preset against {aim}, median of {problems} problems of {world.size} trajectories",
        (
            "estimator",
            "KL per token",
            "bias / norm of the target",
            "variance / on-policy variance",
            f"RMSE at {BATCH} trajectories / norm of the target",
            "least bias",
            "largest bias",
        ),
        rows,
    )


def pivot(table: Table, column: int, distances: tuple[float, ...]) -> Table:
    """Return one number of a trade-off table with a column for each distance.

    Args:
        table: From `trade_off_table`.
        column: Index of the number.
        distances: Which distances to keep.
    """
    names = list(dict.fromkeys(row[0] for row in table.rows))
    values = {(row[0], row[1]): row[column] for row in table.rows}
    short = ("", "", "bias", "variance", "rmse")[column]
    return Table(
        f"{table.name}-{short}",
        f"{table.title}: {table.columns[column]}",
        ("estimator", *(f"KL {kl:g}" for kl in distances)),
        tuple((name, *(values[name, kl] for kl in distances)) for name in names),
    )
