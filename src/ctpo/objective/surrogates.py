"""Surrogates: the loss of a token, and what happens to it at the window's edge.

A surrogate gives the loss as a value and a slope, dL/dlog w_t, instead of as a graph: by default
the gradient of a token is its own only (the prefix in w_t is under stop-gradient), so there is
nothing for autograd to find out.

Two kinds: `ClippedSurrogate` and `PlainSurrogate` here have the weight itself in front of the
advantage and a window around it; `soft_surrogates` holds those that shape the weight otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

    from ctpo.objective.layout import Layout
    from ctpo.objective.windows import Window

LOG_WEIGHT_LIMIT = 40.0
"""Log weights are capped here, just before exp and never before clipping is decided.

exp(40) squared and summed over a gradient still fits float32, so that clipping the gradient's norm
works; exp(88.8) would overflow by itself.
"""


def weight_of(log_weight: Float[Tensor, "*tokens"]) -> Float[Tensor, "*tokens"]:
    """Return exp(log w), finite for every log w that is not NaN.

    Args:
        log_weight: log w in nats.

    Returns:
        w, at most exp(`LOG_WEIGHT_LIMIT`).
    """
    return log_weight.clamp(max=LOG_WEIGHT_LIMIT).exp_()


class Tokens(NamedTuple):
    """What a surrogate may look at; each tensor broadcasts to `*tokens`.

    Attributes:
        logprobs: log π_θ in nats; anything where masked.
        log_ratio: log r_t in nats, 0 where masked.
        log_weight: log w_t in nats, raw; anything where masked.
        advantages: A_t; 0 gives no loss and no slope; anything where masked.
        factors: n_t, the number of token ratios in w_t.
        layout: Where sequences begin and end.
    """

    logprobs: Float[Tensor, "*tokens"]
    log_ratio: Float[Tensor, "*tokens"]
    log_weight: Float[Tensor, "*tokens"]
    advantages: Float[Tensor, "*tokens"]
    factors: Tensor
    layout: Layout


class TokenTerms(NamedTuple):
    """Loss and slope per token, and which side of the window the token is on.

    Attributes:
        value: Loss per token.
        slope: dL/dlog w_t.
        above: The weight is above the window that counts for the sign of its advantage; None where
            the surrogate has no upper bound.
        below: The same below.
        dual: Whether being above with A < 0 is a dual clip's doing, not that of a window which
            holds for both signs.
    """

    value: Float[Tensor, "*tokens"]
    slope: Float[Tensor, "*tokens"]
    above: Bool[Tensor, "*tokens"] | None
    below: Bool[Tensor, "*tokens"] | None
    dual: bool = False


@dataclass(frozen=True)
class Surrogate(ABC):
    """What the loss of a token is, given its weight, its advantage and its window."""

    takes_window: ClassVar[bool]
    """Whether it needs a window; if not, it must have none."""

    has_literal_gradient: ClassVar[bool] = False
    """Whether the printed objective has a gradient through the weight, beyond the token's own."""

    @abstractmethod
    def terms(self, tokens: Tokens, window: Window | None) -> TokenTerms:
        """Return loss and slope per token.

        Args:
            tokens: The batch.
            window: The trust region; None exactly if `takes_window` is false.
        """


@dataclass(frozen=True)
class PlainSurrogate(Surrogate):
    """Importance weighting without a trust region: L_t = -w A, slope -w A.

    What the theorems about bias and variance are about.
    """

    takes_window: ClassVar[bool] = False
    has_literal_gradient: ClassVar[bool] = True

    def terms(self, tokens: Tokens, window: Window | None) -> TokenTerms:
        """Return loss and slope per token; see `Surrogate.terms`."""
        value = -tokens.advantages * weight_of(tokens.log_weight)
        return TokenTerms(value, value, None, None)


@dataclass(frozen=True)
class ClippedSurrogate(Surrogate):
    """PPO's pessimistic clip.

    L_t = -min(w A, clip(w, low, high) A), and for A < 0 no more than -dual · A.

    The slope is -w A, and 0 exactly when A > 0 and s > high, or A < 0 and (s < low or s > dual),
    where s is the window's statistic, usually log w. On a bound itself the gradient still flows.
    Where the statistic is not log w, the loss of a clipped token is -w A, without a slope.
    Source: PPO, arXiv 1707.06347; the dual clip: arXiv 1912.09729; token-local on a cumulative
    ratio: CTPO, arXiv 2605.07331.
    """

    takes_window: ClassVar[bool] = True
    has_literal_gradient: ClassVar[bool] = True

    def terms(self, tokens: Tokens, window: Window | None) -> TokenTerms:
        """Return loss and slope per token; see `Surrogate.terms`."""
        assert window is not None
        log_weight, advantages = tokens.log_weight, tokens.advantages
        statistic = window.statistic(log_weight, tokens.log_ratio, tokens.layout)
        bounds = window.bounds(tokens.factors)
        # A = 0 has no loss; with A > 0 only the upper bound counts, with A < 0 both.
        upper = torch.where(advantages > 0, bounds.high, bounds.dual)
        lower = torch.where(advantages < 0, bounds.low, -torch.inf)
        above, below = statistic > upper, statistic < lower
        if window.bounds_log_weight:
            value = torch.clamp(log_weight, min=lower, max=upper)
            del upper, lower  # as large as the batch
            value = value.clamp_(max=LOG_WEIGHT_LIMIT).exp_()
        else:
            value = weight_of(log_weight)
        value = value.mul_(-advantages)
        # Unclipped, the loss is -w A and so is its derivative in log w.
        return TokenTerms(value, value.masked_fill(above | below, 0.0), above, below, dual=True)
