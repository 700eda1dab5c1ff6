"""Surrogates: the loss of a token, and what happens to it at the window's edge.

A surrogate gives the loss as a value and a slope, dL/dlog π_θ(a_t|s_t), instead of as a graph: the
gradient of a token is its own only (the prefix in w_t is under stop-gradient), so there is nothing
for autograd to find out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from ctpo.objective.windows import Bounds

LOG_WEIGHT_LIMIT = 40.0
"""Log weights are capped here, just before exp and never before clipping is decided.

exp(40) squared and summed over a gradient still fits float32, so that clipping the gradient's norm
works; exp(88.8) would overflow by itself.
"""


def weight_of(log_weight: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Return exp(log w), finite for every log w that is not NaN.

    Args:
        log_weight: log w in nats.

    Returns:
        w, at most exp(`LOG_WEIGHT_LIMIT`).
    """
    return log_weight.clamp(max=LOG_WEIGHT_LIMIT).exp()


class TokenTerms(NamedTuple):
    """Loss and slope per token, and which rule took its gradient away.

    Attributes:
        value: Loss per token.
        slope: dL/dlog π_θ(a_t|s_t).
        clipped_high: A > 0 and the weight is above the window.
        clipped_low: A < 0 and the weight is below the window.
        clipped_dual: A < 0 and the weight is above the dual clip.
    """

    value: Float[Tensor, "B T"]
    slope: Float[Tensor, "B T"]
    clipped_high: Bool[Tensor, "B T"]
    clipped_low: Bool[Tensor, "B T"]
    clipped_dual: Bool[Tensor, "B T"]


@dataclass(frozen=True)
class Surrogate(ABC):
    """What the loss of a token is, given its weight, its advantage and its bounds."""

    @abstractmethod
    def terms(
        self,
        log_weight: Float[Tensor, "B T"],
        advantages: Float[Tensor, "B T"],
        bounds: Bounds,
    ) -> TokenTerms:
        """Return loss and slope per token.

        Args:
            log_weight: log w in nats, raw; anything where masked.
            advantages: Advantage of each token, 0 gives no loss and no slope; anything where
                masked.
            bounds: The window, in log space.

        Returns:
            Terms per token.
        """


@dataclass(frozen=True)
class ClippedSurrogate(Surrogate):
    """PPO's pessimistic clip, token-local.

    L_t = -min(w A, clip(w, low, high) A), and for A < 0 no more than -dual · A.

    The slope is -w A, and 0 exactly when A > 0 and log w > high, or A < 0 and (log w < low or
    log w > dual). On a bound itself the gradient still flows.
    Source: PPO, arXiv 1707.06347; the dual clip: arXiv 1912.09729; token-local on a cumulative
    ratio: CTPO, arXiv 2605.07331.
    """

    def terms(
        self,
        log_weight: Float[Tensor, "B T"],
        advantages: Float[Tensor, "B T"],
        bounds: Bounds,
    ) -> TokenTerms:
        """Return loss and slope per token; see `Surrogate.terms`."""
        negative = advantages < 0
        clipped_high = (advantages > 0) & (log_weight > bounds.high)
        clipped_low = negative & (log_weight < bounds.low)
        clipped_dual = negative & (log_weight > bounds.dual)

        effective = torch.where(clipped_high, bounds.high, log_weight)
        effective = torch.where(clipped_low, bounds.low, effective)
        effective = torch.where(clipped_dual, bounds.dual, effective)
        value = -advantages * weight_of(effective)
        # Unclipped, the loss is -w A and so is its derivative in log π.
        slope = torch.where(clipped_high | clipped_low | clipped_dual, 0.0, value)
        return TokenTerms(value, slope, clipped_high, clipped_low, clipped_dual)
