"""Surrogates: the loss of a token, and what happens to it at the window's edge.

A surrogate gives the loss as a value and a slope, dL/dlog w_t, instead of as a graph: by default
the gradient of a token is its own only (the prefix in w_t is under stop-gradient), so there is
nothing for autograd to find out.

Two kinds: `ClippedSurrogate` and `PlainSurrogate` here have the weight itself in front of the
advantage and a window around it; `soft_surrogates` holds those that shape the weight otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from ctpo.objective.parts import Surrogate, Tokens, TokenTerms, Window

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

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
    needs_weight_bound: ClassVar[bool] = False
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
        return TokenTerms(value, torch.where(above | below, 0.0, value), above, below, dual=True)
