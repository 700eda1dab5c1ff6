"""Proposition 2: how much the ratios vary, and what that says of the gradient."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ctpo.theory.bias import DISTANCES, plain, problem
from ctpo.theory.enumeration import Features, World, at_distance, random_parameters
from ctpo.theory.moments import estimator_moments, on_policy_moments
from ctpo.theory.tables import Cell, Table

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

# Random small problems that the claims about variance are tried on.
PROBLEMS = 200


def ratio_variances(
    world: World, old: Float[Tensor, "d V"], new: Float[Tensor, "d V"]
) -> tuple[Float[Tensor, " H"], Float[Tensor, " H"]]:
    """Return Var_old r_t and Var_old ρ_t by position; that of ρ_H is the last of the latter.

    Where a trajectory is over, r_t = 1 and ρ_t stays at ρ_H.
    """
    before = world.logprobs(old)
    probabilities = before.sum(1).exp()[:, None]
    log_ratio = world.logprobs(new) - before
    # r - 1 and ρ - 1 have mean 0; squaring them avoids a difference of large numbers.
    token, cumulative = torch.expm1(log_ratio), torch.expm1(log_ratio.cumsum(1))
    return (probabilities * token**2).sum(0), (probabilities * cumulative**2).sum(0)


def ratio_table() -> Table:
    """Return Var ρ_t by position against closed forms, for independent and dependent tokens."""
    rows: list[tuple[Cell, ...]] = []
    kinds: tuple[tuple[str, Features, int], ...] = (
        ("independent", "position", 0),
        ("dependent, a", "prefix", 0),
        ("dependent, b", "prefix", 3),
    )
    for name, features, seed in kinds:
        world = World(3, 8, features=features, seed=seed)
        old = random_parameters(world, seed)
        new = at_distance(world, old, random_parameters(world, 500 + seed), DISTANCES[1])
        token, cumulative = ratio_variances(world, old, new)
        # E r = 1, so that Var r_t is χ²_t, averaged over prefixes.
        closed = (1 + token).cumprod(0) - 1
        for t in range(world.length):
            rows.append(
                (
                    name,
                    t + 1,
                    float(token[t]),
                    float(cumulative[t]),
                    float(closed[t]),
                    float(cumulative[t] / closed[t] - 1),
                    float(cumulative[-1] / cumulative[t]),
                    world.length / (t + 1),
                )
            )
    return Table(
        "ratio-variance",
        f"Var ρ_t by position, H = 8, KL {DISTANCES[1]:g} per token",
        (
            "tokens",
            "t",
            "Var r_t = χ²_t",
            "Var ρ_t",
            "∏(1+χ²) - 1",
            "exact over closed form - 1",
            "Var ρ_H / Var ρ_t",
            "H/t",
        ),
        tuple(rows),
    )


def limit_table() -> Table:
    """Return ((1+δ)^H - 1)/((1+δ)^t - 1) against its limit H/t."""
    length = 1000
    rows = tuple(
        (
            delta,
            *(
                math.expm1(length * math.log1p(delta)) / math.expm1(t * math.log1p(delta))
                for t in (10, 100, 500)
            ),
        )
        for delta in (1e-6, 1e-4, 1.3e-3, 1e-2)
    )
    limit: tuple[Cell, ...] = ("limit H/t", *(length / t for t in (10, 100, 500)))
    return Table(
        "variance-quotient",
        f"Var ρ_H / Var ρ_t at equal χ² = δ, H = {length}",
        ("δ", "t = 10", "t = 100", "t = 500"),
        (*rows, limit),
    )


def ensemble_table(problems: int = PROBLEMS) -> Table:
    """Return how often each inequality about variance holds on random small problems."""
    counts: dict[str, list[int]] = {}
    gained: list[list[float]] = [[] for _ in DISTANCES]

    def count(claim: str, distance: int, holds: bool) -> None:
        counts.setdefault(claim, [0] * len(DISTANCES))[distance] += holds

    for seed in range(problems):
        world = World(3, 4, ends=seed % 2 == 1, seed=seed)
        case = problem(world, seed)
        before = world.logprobs(case.old)
        probabilities = before.sum(1).exp()
        old_advantage = case.advantages(case.old)
        sampled = case.rewards - case.baseline()
        for i, kl in enumerate(DISTANCES):
            new = case.new(kl)
            token, cumulative = ratio_variances(world, case.old, new)
            gaps = cumulative[-1] - cumulative[:-1]
            gained[i].append(float(gaps.min() / cumulative[-1]))
            count("Var ρ_t < Var ρ_H at every t < H", i, bool((gaps > 0).all()))
            count("Var r_t ≤ Var ρ_t at every t", i, bool((token <= cumulative + 1e-15).all()))
            log_rho = (world.logprobs(new) - before).cumsum(1)
            for name, advantages in (
                ("given A", case.given),
                ("A_old", old_advantage),
                ("sampled reward", sampled),
            ):
                total = {
                    ratio: estimator_moments(world, case.old, new, plain(ratio), advantages)
                    for ratio in ("token", "cumulative", "full-sequence")
                }
                less = total["cumulative"].variance < total["full-sequence"].variance
                count(f"gradient, {name}: cumulative < full", i, less)
                less = total["token"].variance < total["cumulative"].variance
                count(f"gradient, {name}: token < cumulative", i, less)
                per_token = advantages if advantages.ndim == 2 else advantages[:, None]
                holds = True
                for t in range(world.length - 1):
                    at_t = torch.zeros_like(before)
                    at_t[:, t] = torch.where(world.mask[:, t], per_token.expand_as(before)[:, t], 0)
                    squares = world.gradients(new, at_t).square().sum(1) * probabilities
                    # The means agree for a function of s and a; E|g|² then decides.
                    prefix = float((squares * (2 * log_rho[:, t]).exp()).sum())
                    whole = float((squares * (2 * log_rho[:, -1]).exp()).sum())
                    holds &= prefix <= whole * (1 + 1e-12)
                count(f"one term t of it, {name}: E|g|² cumulative ≤ full", i, holds)
    rows: list[tuple[Cell, ...]] = [
        (claim, *(f"{share / problems:.1%}" for share in shares))
        for claim, shares in sorted(counts.items(), key=lambda item: _order(item[0]))
    ]
    typical = (sorted(shares)[problems // 2] for shares in gained)
    rows.insert(1, ("(Var ρ_H - Var ρ_t) / Var ρ_H, least over t, median problem", *typical))
    return Table(
        "ensemble",
        f"How often each inequality holds, of {problems} random problems",
        ("claim", *(f"KL {kl:g}" for kl in DISTANCES)),
        tuple(rows),
    )


def _order(claim: str) -> tuple[int, str]:
    heads = ("Var ρ_t", "Var r_t", "one term", "gradient")
    return next(i for i, head in enumerate(heads) if claim.startswith(head)), claim


def growth_table() -> Table:
    """Return the gradient's variance over the on-policy one's, by length and distance."""
    rows: list[tuple[Cell, ...]] = []
    for length in (2, 4, 6, 8):
        world = World(4, length)
        case = problem(world, seed=2)
        row: list[Cell] = [length]
        for kl in DISTANCES:
            new = case.new(kl)
            reference = on_policy_moments(world, new, case.given).variance
            row += [
                estimator_moments(world, case.old, new, plain(ratio), case.given).variance
                / reference
                for ratio in ("token", "cumulative", "full-sequence")
            ]
        rows.append(tuple(row))
    return Table(
        "growth",
        "Trace of the gradient's covariance over that of the on-policy estimator, given A",
        (
            "H",
            *(
                f"{ratio}, KL {kl:g}"
                for kl in DISTANCES
                for ratio in ("token", "cumulative", "full")
            ),
        ),
        tuple(rows),
    )
