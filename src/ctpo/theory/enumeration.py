"""Small autoregressive policies whose every trajectory is enumerated.

A trajectory is a string of at most H tokens out of V. With `ends`, token 0 ends it: lengths vary.
The policy is a softmax whose logits are linear in the parameters,

    log π_θ(a|s) = φ_t(s)·θ[:, a] - log Σ_b exp(φ_t(s)·θ[:, b]),

with features φ_t(s) of the whole prefix s, so that ∇_θ log π_θ(a|s) = φ_t(s) ⊗ (e_a - π_θ(·|s)).
Everything is float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

Features = Literal["prefix", "position"]

# More do not fit a laptop's memory beside their gradients.
MOST_TRAJECTORIES = 2_000_000


@dataclass(frozen=True)
class World:
    """All trajectories of a vocabulary and a length, and features of their prefixes.

    Attributes:
        vocabulary: Number of tokens V, at least 2.
        length: Most tokens H of a trajectory.
        ends: Whether token 0 ends a trajectory.
        features: `"prefix"`: random features of the whole prefix, so that token ratios depend on
            each other in every way; `"position"`: the same for all prefixes of a length, so that
            tokens are independent.
        dimensions: Number of features d.
        seed: Of the features.

    Raises:
        ValueError: If there would be more than `MOST_TRAJECTORIES`, or a number is out of range.
    """

    vocabulary: int
    length: int
    ends: bool = False
    features: Features = "prefix"
    dimensions: int = 3
    seed: int = 0
    tokens: Int[Tensor, "N H"] = field(init=False, repr=False, compare=False)
    mask: Bool[Tensor, "N H"] = field(init=False, repr=False, compare=False)
    prefixes: Int[Tensor, "N H"] = field(init=False, repr=False, compare=False)
    phi: tuple[Float[Tensor, "prefixes d"], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, least in (("vocabulary", 2), ("length", 1), ("dimensions", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        total = self.vocabulary**self.length
        if total > MOST_TRAJECTORIES:
            raise ValueError(
                f"vocabulary {self.vocabulary} and length {self.length} make {total} trajectories; "
                f"at most {MOST_TRAJECTORIES} can be enumerated"
            )
        powers = self.vocabulary ** torch.arange(self.length - 1, -1, -1)
        numbers = torch.arange(total)[:, None]
        tokens = numbers // powers % self.vocabulary
        prefixes = numbers // (powers * self.vocabulary)
        mask = torch.ones_like(tokens, dtype=torch.bool)
        if self.ends:
            over = (tokens == 0).cumsum(1)
            mask = (over - (tokens == 0).long()) == 0
            # Behind its end a trajectory is written with zeros, once.
            kept = ((tokens == 0) | mask).all(1)
            tokens, prefixes, mask = tokens[kept], prefixes[kept], mask[kept]
        # numpy's generator promises the same numbers everywhere.
        random = np.random.default_rng(self.seed)
        phi = []
        for t in range(self.length):
            rows = self.vocabulary**t if self.features == "prefix" else 1
            values = torch.from_numpy(random.standard_normal((rows, self.dimensions)))
            phi.append(values.expand(self.vocabulary**t, -1))
        for name, value in (
            ("tokens", tokens),
            ("mask", mask),
            ("prefixes", prefixes),
            ("phi", tuple(phi)),
        ):
            object.__setattr__(self, name, value)

    @property
    def size(self) -> int:
        """Number of trajectories N."""
        return len(self.tokens)

    @property
    def lengths(self) -> Int[Tensor, " N"]:
        """Tokens of each trajectory."""
        return self.mask.sum(1)

    def table(self, theta: Float[Tensor, "d V"]) -> list[Float[Tensor, "prefixes V"]]:
        """Return log π_θ(a|s) in nats for every prefix of every length, from 0 to H - 1."""
        return [(phi @ theta).log_softmax(1) for phi in self.phi]

    def gather(self, tables: list[Float[Tensor, "prefixes V"]]) -> Float[Tensor, "N H"]:
        """Return each trajectory's entries of a table over (s, a); 0 where it is over."""
        columns = [table[self.prefixes[:, t], self.tokens[:, t]] for t, table in enumerate(tables)]
        return torch.where(self.mask, torch.stack(columns, 1), 0.0)

    def logprobs(self, theta: Float[Tensor, "d V"]) -> Float[Tensor, "N H"]:
        """Return log π_θ(a_t|s_t) in nats, 0 where a trajectory is over."""
        return self.gather(self.table(theta))

    def probabilities(self, theta: Float[Tensor, "d V"]) -> Float[Tensor, " N"]:
        """Return π_θ(τ) of every trajectory; they sum to 1."""
        return self.logprobs(theta).sum(1).exp()

    def gradients(
        self, theta: Float[Tensor, "d V"], coefficients: Float[Tensor, "N H"]
    ) -> Float[Tensor, "N P"]:
        """Return Σ_t c_t ∇_θ log π_θ(a_t|s_t) of every trajectory, P = d · V.

        Args:
            theta: The policy's parameters.
            coefficients: c_t; 0 where a trajectory is over.
        """
        total = torch.zeros(self.size, self.dimensions, self.vocabulary, dtype=torch.float64)
        for t, table in enumerate(self.table(theta)):
            prefix = self.prefixes[:, t]
            score = -table.exp()[prefix]
            score[torch.arange(self.size), self.tokens[:, t]] += 1
            score *= coefficients[:, t, None]
            total += self.phi[t][prefix][:, :, None] * score[:, None, :]
        return total.flatten(1)

    def action_values(
        self, theta: Float[Tensor, "d V"], rewards: Float[Tensor, " N"]
    ) -> tuple[list[Float[Tensor, "prefixes V"]], list[Float[Tensor, " prefixes"]]]:
        """Return Q(s, a) and V(s) of a policy with a reward at the end of the trajectory."""
        value = torch.zeros(self.vocabulary**self.length, dtype=torch.float64)
        value[self.prefixes[:, -1] * self.vocabulary + self.tokens[:, -1]] = rewards
        q_tables: list[Tensor] = []
        v_tables: list[Tensor] = []
        over = self.over()
        for t in range(self.length - 1, -1, -1):
            q = value.view(-1, self.vocabulary)
            probabilities = self.table(theta)[t].exp()
            # Behind its end a trajectory is written with zeros.
            value = torch.where(over[t], q[:, 0], (probabilities * q).sum(1))
            q_tables.insert(0, q)
            v_tables.insert(0, value)
        return q_tables, v_tables

    def over(self) -> list[Bool[Tensor, " prefixes"]]:
        """Return for each prefix of each length whether the trajectory is over."""
        over = [torch.zeros(1, dtype=torch.bool)]
        for _ in range(self.length - 1):
            longer = over[-1].repeat_interleave(self.vocabulary)
            if self.ends:
                longer = longer | (torch.arange(len(longer)) % self.vocabulary == 0)
            over.append(longer)
        return over


def random_tables(world: World, seed: int) -> list[Float[Tensor, "prefixes V"]]:
    """Return a function of (s, a) without any structure, e.g. a given advantage."""
    random = np.random.default_rng(seed)
    return [
        torch.from_numpy(random.standard_normal((world.vocabulary**t, world.vocabulary)))
        for t in range(world.length)
    ]


def random_parameters(world: World, seed: int, scale: float = 1.0) -> Float[Tensor, "d V"]:
    """Return the parameters of a random policy."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((world.dimensions, world.vocabulary))
    return scale * torch.from_numpy(values)


def divergence(world: World, old: Float[Tensor, "d V"], new: Float[Tensor, "d V"]) -> float:
    """Return KL(π_old‖π_θ) in nats per token: E_old[-log ρ_H] / E_old[H]."""
    reach, tokens, total = torch.ones(1, dtype=torch.float64), 0.0, 0.0
    for over, before, now in zip(world.over(), world.table(old), world.table(new), strict=True):
        reach = torch.where(over, 0.0, reach)
        probabilities = before.exp()
        total += float((reach * (probabilities * (before - now)).sum(1)).sum())
        tokens += float(reach.sum())
        reach = (reach[:, None] * probabilities).flatten()
    return total / tokens


def at_distance(
    world: World,
    old: Float[Tensor, "d V"],
    direction: Float[Tensor, "d V"],
    kl: float,
) -> Float[Tensor, "d V"]:
    """Return π_θ's parameters, from π_old's along a direction as far as a KL per token.

    Args:
        world: The trajectories.
        old: Parameters of π_old.
        direction: Where to.
        kl: KL(π_old‖π_θ) in nats per token.

    Raises:
        ValueError: If the direction does not lead that far.
    """
    step = 0.1
    for _ in range(100):
        found = divergence(world, old, old + step * direction)
        if found == 0:
            raise ValueError(f"no policy along this direction has a KL of {kl} per token")
        # KL is convex along a line and starts quadratically, so that this converges.
        factor = math.sqrt(kl / found)
        step *= factor
        if abs(factor - 1) < 1e-13:
            break
    return old + step * direction
