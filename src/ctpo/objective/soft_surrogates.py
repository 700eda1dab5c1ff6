"""Surrogates that shape the weight otherwise than by PPO's pessimistic clip.

Most are of the score-function form L_t = -sg(f(w_t)) A log π_θ(a_t|s_t): the weight is a constant
and the gradient flows through log π only, also for tokens outside the window.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from ctpo.objective.parameters import require, require_numbers
from ctpo.objective.parts import Choices, Surrogate, Tokens, TokenTerms, Window
from ctpo.objective.ratios import SequenceGeometricMeanRatio, TokenRatio
from ctpo.objective.surrogates import weight_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class CISPOSurrogate(Surrogate):
    """Clipped importance weights under stop-gradient: L_t = -sg(clip(w, low, high)) A log π.

    No token loses its gradient; a weight outside the window counts as the bound. The window's dual
    clip has no part in it.
    Source: CISPO in MiniMax-M1, arXiv 2506.13585.
    """

    takes_window: ClassVar[bool] = True

    def terms(self, tokens: Tokens, window: Window | None) -> TokenTerms:
        """Return loss and slope per token; see `Surrogate.terms`."""
        assert window is not None
        bounds = window.bounds(tokens.factors)
        above, below = tokens.log_weight > bounds.high, tokens.log_weight < bounds.low
        clipped = torch.clamp(tokens.log_weight, min=bounds.low, max=bounds.high)
        return _score_function(tokens, weight_of(clipped), above, below)

    def refuses(self, objective: Choices) -> str | None:
        """Refuse a dual clip; see `Part.refuses`."""
        if getattr(objective.window, "dual_clip", None) is None:
            return None
        return (
            "dual_clip would have no effect on CISPO, whose upper bound holds for both signs of "
            "the advantage; set dual_clip=None"
        )


@dataclass(frozen=True, kw_only=True)
class SAPOSurrogate(Surrogate):
    """Soft gate: L_t = -(4/τ) σ(τ (w - 1)) A, with τ by the sign of the advantage.

    The slope is -4 σ(1 - σ) w A: that of the plain weight at w = 1, fading on both sides.
    Source: SAPO, arXiv 2511.20347.

    Attributes:
        tau_pos: τ for A > 0. Larger fades faster.
        tau_neg: τ for A ≤ 0.

    Raises:
        ValueError: If a parameter is out of range.
    """

    takes_window: ClassVar[bool] = False
    has_literal_gradient: ClassVar[bool] = True

    tau_pos: float = 1.0
    tau_neg: float = 1.05

    def __post_init__(self) -> None:
        require_numbers(self)
        for name in ("tau_pos", "tau_neg"):
            require(0 < getattr(self, name) < math.inf, self, name, "finite and above 0, e.g. 1.0")

    def terms(self, tokens: Tokens, window: Window | None) -> TokenTerms:
        """Return loss and slope per token; see `Surrogate.terms`."""
        weight = weight_of(tokens.log_weight)
        tau = _choose(tokens.advantages > 0, self.tau_pos, self.tau_neg, weight)
        gate = torch.sigmoid(tau * (weight - 1))
        value = -4 / tau * gate * tokens.advantages
        slope = -4 * gate * (1 - gate) * weight * tokens.advantages
        return TokenTerms(value, slope, None, None)


@dataclass(frozen=True)
class TOPRSurrogate(Surrogate):
    """Tapered: weight 1 for A > 0, and w cut to [0, 1] for A < 0, under stop-gradient.

    L_t = -sg(f) A log π with f = 1 or min(w, 1). Answers that were right are imitated wherever they
    came from; wrong ones count only as far as the policy would still give them.
    Source: TOPR, arXiv 2503.14286.
    """

    takes_window: ClassVar[bool] = False

    def terms(self, tokens: Tokens, window: Window | None) -> TokenTerms:
        """Return loss and slope per token; see `Surrogate.terms`."""
        tapered = tokens.log_weight.clamp(max=0.0)
        factor = torch.where(tokens.advantages > 0, 1.0, tapered.exp())
        above = (tokens.log_weight > 0) & (tokens.advantages < 0)
        return _score_function(tokens, factor, above, None)


@dataclass(frozen=True, kw_only=True)
class VESPOSurrogate(Surrogate):
    """Gamma-shaped weight under stop-gradient: L_t = -sg(w^k e^{λ(1-w)}) A log π.

    f(1) = 1; the weight fades for w far from k/λ on either side.
    Source: VESPO, arXiv 2602.10693; defaults as in TRL 1.16.

    Attributes:
        k_pos: Exponent k for A ≥ 0. Larger suppresses small weights more.
        lambda_pos: λ for A ≥ 0. Larger suppresses large weights more.
        k_neg: k for A < 0.
        lambda_neg: λ for A < 0.

    Raises:
        ValueError: If a parameter is out of range.
    """

    takes_window: ClassVar[bool] = False

    k_pos: float = 2.0
    lambda_pos: float = 3.0
    k_neg: float = 3.0
    lambda_neg: float = 2.0

    def __post_init__(self) -> None:
        require_numbers(self)
        for name in ("k_pos", "k_neg"):
            require(0 <= getattr(self, name) < math.inf, self, name, "finite, at least 0, e.g. 2.0")
        for name in ("lambda_pos", "lambda_neg"):
            require(0 < getattr(self, name) < math.inf, self, name, "finite, above 0, e.g. 3.0")

    def terms(self, tokens: Tokens, window: Window | None) -> TokenTerms:
        """Return loss and slope per token; see `Surrogate.terms`."""
        negative = tokens.advantages < 0
        k = _choose(negative, self.k_neg, self.k_pos, tokens.log_weight)
        rate = _choose(negative, self.lambda_neg, self.lambda_pos, tokens.log_weight)
        # In log space, where neither factor overflows.
        log_factor = k * tokens.log_weight + rate * (1 - weight_of(tokens.log_weight))
        return _score_function(tokens, log_factor.exp(), None, None)


@dataclass(frozen=True)
class GMPOSurrogate(Surrogate):
    """Geometric mean of *clipped* token ratios: L_t = -exp(mean_j clip(log r_j)) A.

    Each token's log r is clipped pessimistically in log space before the mean is taken, so the
    window acts on token ratios. The slope is -w A on tokens that were not clipped and 0 on those
    that were, which with the mean over tokens is the gradient of the sequence's loss.
    Source: GMPO, arXiv 2507.20673.
    """

    takes_window: ClassVar[bool] = True

    def terms(self, tokens: Tokens, window: Window | None) -> TokenTerms:
        """Return loss and slope per token; see `Surrogate.terms`."""
        assert window is not None
        layout, advantages = tokens.layout, tokens.advantages
        bounds = window.bounds(tokens.factors)
        above = (tokens.log_ratio > bounds.high) & (advantages > 0)
        below = (tokens.log_ratio < bounds.low) & (advantages < 0)
        clipped = torch.where(above, bounds.high, torch.where(below, bounds.low, tokens.log_ratio))
        clipped = torch.where(layout.mask, clipped, 0.0)
        log_mean = layout.totals(clipped) / layout.lengths.clamp(min=1)
        value = -advantages * layout.spread(weight_of(log_mean))
        return TokenTerms(value, value.masked_fill(above | below, 0.0), above, below)

    def refuses(self, objective: Choices) -> str | None:
        """Refuse another ratio than the mean it computes, and a dual clip; see `Part.refuses`."""
        if type(objective.ratio) is not SequenceGeometricMeanRatio:
            return (
                f"{self!r} is a geometric mean over the sequence; set "
                f"ratio='sequence-geometric-mean', not {objective.ratio!r}"
            )
        if getattr(objective.window, "dual_clip", None) is not None:
            return "dual_clip would have no effect on GMPO; set dual_clip=None"
        return None


@dataclass(frozen=True, kw_only=True)
class CPPOSurrogate(Surrogate):
    """Token mask with a budget of divergence over the prefix: L_t = -r_t A on tokens kept.

    A token is kept iff A (r_t - 1) ≤ 0, so that its update moves r back towards 1, or

    v_t D_t ≤ min(δ, δ + δ_b V_{t-1} - S_{t-1}),

    with D_t = |π_θ(a_t|s_t) - π_old(a_t|s_t)|, the total variation of the sampled token against
    the rest, v_t = (H - t + 1)/H falling along the response, V_{t-1} = Σ_{i<t} v_i and
    S_{t-1} = Σ_{i<t} v_i D_i.
    Source: CPPO, arXiv 2606.10968, for the rule. Of the source only the rule was at hand: v_t, the
    choice of D_t and the defaults are our reading of it, so compare with the paper before you quote
    results under its name.

    Attributes:
        delta: δ, the most weighted divergence of a token.
        delta_budget: δ_b, by how much each token of the prefix adds to the budget.

    Raises:
        ValueError: If a parameter is out of range.
    """

    takes_window: ClassVar[bool] = False

    delta: float = 0.15
    delta_budget: float = 0.02

    def __post_init__(self) -> None:
        require_numbers(self)
        for name in ("delta", "delta_budget"):
            require(
                0 <= getattr(self, name) < math.inf, self, name, "finite, at least 0, e.g. 0.15"
            )

    def terms(self, tokens: Tokens, window: Window | None) -> TokenTerms:
        """Return loss and slope per token; see `Surrogate.terms`."""
        layout, advantages = tokens.layout, tokens.advantages
        mask = layout.mask
        length = layout.spread(layout.lengths).clamp(min=1)
        fall = torch.where(mask, (length - layout.positions + 1) / length, 0.0)
        divergence = (tokens.logprobs.exp() - (tokens.logprobs - tokens.log_ratio).exp()).abs()
        weighted = torch.where(mask, fall * divergence, 0.0).to(tokens.log_ratio.dtype)
        spent = layout.prefix_sums(weighted) - weighted
        earned = layout.prefix_sums(fall.to(weighted.dtype)) - fall
        room = (self.delta + self.delta_budget * earned - spent).clamp(max=self.delta)
        over = weighted > room
        above = over & (advantages > 0) & (tokens.log_ratio > 0)
        below = over & (advantages < 0) & (tokens.log_ratio < 0)
        kept = weight_of(tokens.log_weight).mul(-advantages).masked_fill(above | below, 0.0)
        return TokenTerms(kept, kept, above, below)

    def refuses(self, objective: Choices) -> str | None:
        """Refuse any ratio but the token's; see `Part.refuses`."""
        if type(objective.ratio) is TokenRatio:
            return None
        return f"{self!r} weighs tokens by their own ratio; set ratio='token'"


def _score_function(
    tokens: Tokens, factor: Tensor, above: Tensor | None, below: Tensor | None
) -> TokenTerms:
    """Return the terms of L_t = -sg(factor) A log π."""
    slope = -tokens.advantages * factor
    return TokenTerms(slope * tokens.logprobs, slope, above, below)


def _choose(condition: Tensor, if_true: float, if_false: float, like: Tensor) -> Tensor:
    """Return one of two numbers per place, in the dtype of `like`."""
    numbers = torch.full(condition.shape, if_false, dtype=like.dtype, device=like.device)
    return numbers.masked_fill_(condition, if_true)
