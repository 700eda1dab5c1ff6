"""Weights against the generator: rollouts come from an engine whose log-probs differ a little.

π_old is what the *trainer* says about the policy that generated, μ what the generating engine says.
The correction is a constant factor on each token's loss, applied outside the clip, made of
k_t = π_old(a_t|s_t) / μ(a_t|s_t).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from ctpo.objective.parameters import require, require_numbers, unknown_name
from ctpo.objective.surrogates import weight_of

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from ctpo.objective.layout import Layout

Level = Literal["token", "prefix", "sequence"]
LEVELS = ("token", "prefix", "sequence")
EDGES = ("truncate", "mask")


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """Importance weight against the generator.

    With u_t = k_t (`token`), ∏_{j≤t} k_j (`prefix`) or ∏_{j≤H} k_j (`sequence`):

    - `truncate`: min(u, cap), truncated importance sampling (TIS); every token keeps some weight.
    - `mask`: u · 1[floor ≤ u ≤ cap], masked importance sampling (MIS); at token level with a floor
      this is IcePop.

    The level that goes with a cumulative ratio is `prefix`: `sequence` brings the suffix back in,
    and with it the variance that the cumulative ratio avoids; `token` ignores the prefix.
    Source: TIS and MIS: "Your efficient RL framework secretly brings you off-policy RL training",
    Yao et al. 2025, and verl's rollout correction; IcePop: arXiv 2510.18855, k · 1[0.5 ≤ k ≤ 5].

    Attributes:
        level: Over which tokens the product goes.
        edge: What becomes of a weight outside.
        cap: Largest weight. The paper of CTPO takes 5.
        floor: Smallest weight that is kept; with `truncate` it must be 0.

    Raises:
        ValueError: If a parameter is out of range or without effect.
    """

    level: Level
    edge: Literal["truncate", "mask"] = "truncate"
    cap: float = 5.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        require_numbers(self)
        if self.level not in LEVELS:
            raise unknown_name("level", str(self.level), LEVELS)
        if self.edge not in EDGES:
            raise unknown_name("edge", str(self.edge), EDGES)
        require(1 <= self.cap < math.inf, self, "cap", "finite and at least 1, e.g. 5.0")
        require(0 <= self.floor <= 1, self, "floor", "between 0 and 1, e.g. 0.5")
        require(
            self.floor == 0 or self.edge == "mask",
            self,
            "floor",
            "0 with edge='truncate', where it would have no effect",
        )

    def weights(
        self,
        old_logprobs: Float[Tensor, "*tokens"],
        rollout_logprobs: Float[Tensor, "*tokens"],
        layout: Layout,
    ) -> Float[Tensor, "*tokens"]:
        """Return the factor of each token's loss, without gradient.

        Args:
            old_logprobs: log π_old in nats, as the trainer computes it; anything where masked.
            rollout_logprobs: log μ in nats, as the generating engine returned it; anything where
                masked.
            layout: Where sequences begin and end.

        Returns:
            The factor; anything where masked.
        """
        log_weight = log_weights(old_logprobs - rollout_logprobs, layout, self.level)
        # Decided on logs, before anything is capped for exp.
        log_cap = math.log(self.cap)
        if self.edge == "truncate":
            return weight_of(log_weight.clamp(max=log_cap))
        log_floor = math.log(self.floor) if self.floor else -math.inf
        kept = (log_weight >= log_floor) & (log_weight <= log_cap)
        return torch.where(kept, weight_of(log_weight), 0.0)


def log_weights(
    log_ratio: Float[Tensor, "*tokens"], layout: Layout, level: Level
) -> Float[Tensor, "*tokens"]:
    """Return log u_t, before anything is truncated or masked.

    Args:
        log_ratio: log k_t in nats; anything where masked.
        layout: Where sequences begin and end.
        level: Over which tokens the product goes.
    """
    log_weight = torch.where(layout.mask, log_ratio, 0.0)
    if level == "prefix":
        return layout.prefix_sums(log_weight)
    return layout.spread(layout.totals(log_weight)) if level == "sequence" else log_weight


def icepop(floor: float = 0.5, cap: float = 5.0) -> Mismatch:
    """Return IcePop's weight: k_t where floor ≤ k_t ≤ cap, else 0. Source: arXiv 2510.18855.

    Args:
        floor: As in `Mismatch`.
        cap: As in `Mismatch`.
    """
    return Mismatch(level="token", edge="mask", floor=floor, cap=cap)
