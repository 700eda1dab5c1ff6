"""Proposition 1: which estimators are unbiased, and for which target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ctpo.objective import RATIOS, Objective
from ctpo.theory.enumeration import (
    World,
    at_distance,
    random_parameters,
    random_tables,
)
from ctpo.theory.moments import Moments, estimator_mean, estimator_moments, on_policy_moments
from ctpo.theory.tables import Cell, Table

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

# KL per token: 6.5e-4 is the paper's reported spread of log r, σ = 0.036, as σ²/2.
DISTANCES = (6.5e-4, 1e-2, 1e-1)
_HEADINGS = [f"{what}, KL {kl:g}" for kl in DISTANCES for what in ("bias", "standard deviation")]


def plain(ratio: str, *, literal: bool = False) -> Objective:
    """Return a ratio without a trust region.

    Args:
        ratio: A key of `RATIOS`.
        literal: With the gradient of the printed objective, through the prefix too.
    """
    return Objective(
        ratio=RATIOS[ratio](), surrogate="plain", gradient="literal" if literal else "token-local"
    )


@dataclass(frozen=True)
class Problem:
    """Trajectories, an old policy, a direction to move in, and rewards.

    Attributes:
        world: The trajectories.
        old: Parameters of π_old.
        direction: Where π_θ goes: half uphill on J, half anywhere.
        rewards: R(τ), 0 or 1.
        given: A(s_t, a_t) per token, any function of s and a.
    """

    world: World
    old: Float[Tensor, "d V"]
    direction: Float[Tensor, "d V"]
    rewards: Float[Tensor, " N"]
    given: Float[Tensor, "N H"]

    def new(self, kl: float) -> Float[Tensor, "d V"]:
        """Return π_θ's parameters.

        Args:
            kl: KL(π_old‖π_θ) in nats per token.
        """
        return at_distance(self.world, self.old, self.direction, kl)

    def baseline(self) -> float:
        """Return J(π_old)."""
        return float((self.world.probabilities(self.old) * self.rewards).sum())

    def advantages(self, theta: Float[Tensor, "d V"]) -> Float[Tensor, "N H"]:
        """Return A(s_t, a_t) = Q - V of a policy's own continuation."""
        q, v = self.world.action_values(theta, self.rewards)
        return self.world.gather([a - b[:, None] for a, b in zip(q, v, strict=True)])

    def objective_gradient(self, theta: Float[Tensor, "d V"]) -> Moments:
        """Return the moments of the on-policy estimator of ∇J."""
        return on_policy_moments(self.world, theta, self.rewards - self.baseline())


def problem(world: World, seed: int) -> Problem:
    """Return a random problem; the same seed gives the same one."""
    random = np.random.default_rng(10_000 + seed)
    rewards = torch.from_numpy((random.random(world.size) < 0.3).astype(np.float64))
    old = random_parameters(world, 20_000 + seed)
    per_token = rewards[:, None].expand_as(world.mask)
    uphill = estimator_mean(world, old, old, None, per_token).view_as(old)
    anywhere = random_parameters(world, 30_000 + seed)
    norm = float(uphill.norm())
    direction = (uphill / norm if norm else 0 * uphill) + anywhere / anywhere.norm()
    given = world.gather(random_tables(world, 40_000 + seed))
    return Problem(world, old, direction, rewards, given)


def token_level_table() -> Table:
    """Return bias and spread of every ratio against the token-level gradient with a given A."""
    small = problem(World(4, 8, ends=True), seed=0)
    # One prefix per string up to length 7, and 390,625 trajectories.
    large = problem(World(5, 8), seed=1)
    far = large.new(DISTANCES[1])
    far_target = estimator_mean(large.world, far, far, None, large.given)
    news = [small.new(kl) for kl in DISTANCES]
    targets = [on_policy_moments(small.world, new, small.given).mean for new in news]
    rows: list[tuple[Cell, ...]] = []
    for ratio in RATIOS:
        found = _bias_and_spread(small, news, targets, plain(ratio), small.given)
        mean = estimator_mean(large.world, large.old, far, plain(ratio), large.given)
        rows.append((ratio, *found, float((mean - far_target).norm() / far_target.norm())))
    return Table(
        "token-level",
        f"Against the token-level gradient with a given A(s, a), {small.world.size} trajectories; "
        f"last column {large.world.size}. In units of the target's norm, one trajectory",
        ("ratio", *_HEADINGS, f"bias, {large.world.size} trajectories, KL {DISTANCES[1]:g}"),
        tuple(rows),
    )


def terminal_reward_table() -> Table:
    """Return bias and spread of the estimators against ∇J with a reward at the end."""
    case = problem(World(4, 8, ends=True), seed=0)
    sampled = case.rewards - case.baseline()
    old_advantage = case.advantages(case.old)
    estimators: list[tuple[str, Objective, Tensor]] = [
        (f"{ratio}, sampled reward", plain(ratio), sampled) for ratio in RATIOS
    ]
    estimators += [
        ("cumulative, A_old known", plain("cumulative"), old_advantage),
        ("cumulative, A_old known, literal", plain("cumulative", literal=True), old_advantage),
        ("cumulative, sampled reward, literal", plain("cumulative", literal=True), sampled),
    ]
    news = [case.new(kl) for kl in DISTANCES]
    targets = [case.objective_gradient(new).mean for new in news]
    rows: list[tuple[Cell, ...]] = [
        (name, *_bias_and_spread(case, news, targets, objective, advantages))
        for name, objective, advantages in estimators
    ]
    return Table(
        "terminal-reward",
        f"Against ∇J(π_θ) with a reward at the end, {case.world.size} trajectories, in units of "
        "the target's norm, one trajectory",
        ("estimator", *_HEADINGS),
        tuple(rows),
    )


def _bias_and_spread(
    case: Problem,
    news: Sequence[Tensor],
    targets: Sequence[Tensor],
    objective: Objective,
    advantages: Tensor,
) -> Iterator[float]:
    """Yield bias and standard deviation at each distance, in units of the target's norm."""
    for new, target in zip(news, targets, strict=True):
        moments = estimator_moments(case.world, case.old, new, objective, advantages)
        yield moments.bias(target) / float(target.norm())
        yield moments.variance**0.5 / float(target.norm())


def identities_table() -> Table:
    """Return how exactly the identities hold that say what the cumulative ratio estimates."""
    case = problem(World(4, 8, ends=True), seed=0)
    world, old = case.world, case.old
    old_advantage = case.advantages(old)
    sampled = case.rewards - case.baseline()
    before = world.logprobs(old)
    rows: list[list[Cell]] = [
        ["E[sampled reward] - E_new[A_old ∇log π], norm, relative"],
        ["Σ_t E_old[ρ_t A_old] - (J(new) - J(old))"],
        ["J(new) - J(old)"],
        ["E_old[ρ_t] - 1, largest over t"],
        ["E_old[M_t], largest over t"],
    ]
    for kl in DISTANCES:
        new = case.new(kl)
        now = world.logprobs(new)
        estimated = estimator_moments(world, old, new, plain("cumulative"), sampled).mean
        continuation = on_policy_moments(world, new, old_advantage).mean
        rho = (now - before).cumsum(1).exp()
        martingale = torch.expm1(now - before).cumsum(1)
        probabilities = before.sum(1).exp()
        surrogate = float((probabilities * (rho * old_advantage).sum(1)).sum())
        gained = float((world.probabilities(new) * case.rewards).sum()) - case.baseline()
        rows[0].append(float((estimated - continuation).norm() / continuation.norm()))
        rows[1].append(abs(surrogate - gained))
        rows[2].append(gained)
        # A trajectory that is over stands still: ρ_{min(t, H)}.
        rows[3].append(float(((probabilities[:, None] * rho).sum(0) - 1).abs().max()))
        rows[4].append(float((probabilities[:, None] * martingale).sum(0).abs().max()))
    return Table(
        "identities",
        "What the cumulative ratio estimates",
        ("quantity", *(f"KL {kl:g}" for kl in DISTANCES)),
        tuple(map(tuple, rows)),
    )


def length_mean_table() -> Table:
    """Return the bias that dividing by the trajectory's own length adds."""
    case = problem(World(4, 8, ends=True), seed=0)
    world = case.world
    rows: list[tuple[Cell, ...]] = []
    news = [case.new(kl) for kl in DISTANCES]
    targets = [on_policy_moments(world, new, case.given, length_mean=True).mean for new in news]
    for ratio in RATIOS:
        row: list[Cell] = [ratio]
        for new, target in zip(news, targets, strict=True):
            moments = estimator_moments(
                world, case.old, new, plain(ratio), case.given, length_mean=True
            )
            row.append(moments.bias(target) / float(target.norm()))
        rows.append(tuple(row))
    return Table(
        "length-mean",
        "Bias of 1/|o| Σ_t against the same on policy, for a given A, in units of its norm",
        ("ratio", *(f"KL {kl:g}" for kl in DISTANCES)),
        tuple(rows),
    )
