"""Importance weights: which product of token ratios stands in front of a token's advantage.

Every ratio starts from the token log ratio log r_t = log π_θ(a_t|s_t) - log π_old(a_t|s_t), which
is 0 where the mask is 0. t counts policy tokens only, from 1, through all turns: a hole in the mask
neither enters a product nor advances t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from ctpo.objective.parts import Choices, Ratio

if TYPE_CHECKING:
    from torch import Tensor

    from ctpo.objective.layout import Layout


@dataclass(frozen=True)
class TokenRatio(Ratio):
    """Token ratio: w_t = r_t, n_t = 1.

    Low variance, and biased: it ignores that the prefix was drawn from π_old.
    Source: PPO, arXiv 1707.06347; GRPO, arXiv 2402.03300.
    """

    def log_weight(self, log_ratio: Tensor, layout: Layout) -> Tensor:
        """Return log r_t; see `Ratio.log_weight`."""
        return log_ratio

    def adjoint(self, gradient: Tensor, layout: Layout) -> Tensor:
        """Return the gradient as it is; see `Ratio.adjoint`."""
        return gradient

    def refuses(self, objective: Choices) -> str | None:
        """Refuse a literal gradient, which would be no other; see `Part.refuses`."""
        if objective.gradient != "literal":
            return None
        return "the literal gradient of a token ratio is the token-local one; leave gradient out"


@dataclass(frozen=True)
class CumulativeRatio(Ratio):
    """Cumulative ratio: w_t = ρ_t = ∏_{j≤t} r_j, n_t = t.

    Unbiased for the token-level term A(s_t,a_t) ∇log π_θ(a_t|s_t) given the advantage function,
    with less variance than the full-sequence ratio. With a *sampled* return in place of A it is the
    gradient of the surrogate J(π_old) + Σ_t E_old[ρ_t A_old], not of J itself.
    Source: CTPO, arXiv 2605.07331, propositions 1 and 2.
    """

    accumulates: ClassVar[bool] = True

    def log_weight(self, log_ratio: Tensor, layout: Layout) -> Tensor:
        """Return log ρ_t; see `Ratio.log_weight`."""
        return layout.prefix_sums(log_ratio)

    def adjoint(self, gradient: Tensor, layout: Layout) -> Tensor:
        """Return the sum over later tokens and this one; see `Ratio.adjoint`."""
        return layout.suffix_sums(gradient)

    def factors(self, layout: Layout) -> Tensor:
        """Return t; see `Ratio.factors`."""
        return layout.positions


@dataclass(frozen=True)
class CumulativeGeometricMeanRatio(Ratio):
    """Cumulative geometric mean: w_t = ρ_t^(1/t) = (∏_{j≤t} r_j)^(1/t), n_t = t.

    Biased by the rescaling, of the scale of one factor. log w_t is a mean of t terms, whose spread
    *shrinks* like 1/√t, so its natural window has power -0.5.
    Source: PNPO, arXiv 2608.01418.
    """

    accumulates: ClassVar[bool] = True

    def log_weight(self, log_ratio: Tensor, layout: Layout) -> Tensor:
        """Return (1/t) Σ_{j≤t} log r_j; see `Ratio.log_weight`."""
        return layout.prefix_sums(log_ratio) / layout.positions.clamp(min=1)

    def adjoint(self, gradient: Tensor, layout: Layout) -> Tensor:
        """Return Σ_{t≥j} gradient_t / t; see `Ratio.adjoint`."""
        return layout.suffix_sums(gradient / layout.positions.clamp(min=1))

    def factors(self, layout: Layout) -> Tensor:
        """Return t; see `Ratio.factors`."""
        return layout.positions


@dataclass(frozen=True)
class FullSequenceRatio(Ratio):
    """Full-sequence ratio: w_t = ρ_H = ∏_{j≤H} r_j for every token, n_t = H.

    Unbiased, and of the highest variance: the factors after t have mean 1 and only add noise to a
    given advantage.
    Source: the sequence-level estimator that CTPO, arXiv 2605.07331, compares with.
    """

    accumulates: ClassVar[bool] = True

    def log_weight(self, log_ratio: Tensor, layout: Layout) -> Tensor:
        """Return log ρ_H; see `Ratio.log_weight`."""
        return layout.spread(layout.totals(log_ratio))

    def adjoint(self, gradient: Tensor, layout: Layout) -> Tensor:
        """Return the sum over the sequence; see `Ratio.adjoint`."""
        return layout.spread(layout.totals(gradient))

    def factors(self, layout: Layout) -> Tensor:
        """Return H; see `Ratio.factors`."""
        return layout.spread(layout.lengths)


@dataclass(frozen=True)
class SequenceGeometricMeanRatio(Ratio):
    """Geometric mean over the response: w_t = (∏_{j≤H} r_j)^(1/H) for every token.

    Low variance, and biased by the rescaling. It is of the scale of one factor, so n_t = 1: GSPO's
    published window is fixed.
    Source: GSPO, arXiv 2507.18071.
    """

    def log_weight(self, log_ratio: Tensor, layout: Layout) -> Tensor:
        """Return (1/H) Σ_{j≤H} log r_j; see `Ratio.log_weight`."""
        return layout.spread(layout.totals(log_ratio) / layout.lengths.clamp(min=1))

    def adjoint(self, gradient: Tensor, layout: Layout) -> Tensor:
        """Return the mean over the sequence; see `Ratio.adjoint`."""
        return layout.spread(layout.totals(gradient) / layout.lengths.clamp(min=1))


@dataclass(frozen=True)
class MinimumPrefixRatio(Ratio):
    """Minimum prefix ratio: w_t = r_t · min_{i<t} r_i, and w_1 = r_1.

    Replaces the product over the prefix by its smallest factor, which cannot explode. Biased.
    Source: MinPRO, arXiv 2601.22718.
    """

    def log_weight(self, log_ratio: Tensor, layout: Layout) -> Tensor:
        """Return log r_t + min_{i<t} log r_i; see `Ratio.log_weight`."""
        candidates = torch.where(layout.mask, log_ratio, math.inf)
        smallest = layout.preceding_minima(candidates)
        return log_ratio + torch.where(smallest == math.inf, 0.0, smallest)

    def refuses(self, objective: Choices) -> str | None:
        """Refuse a literal gradient: a minimum is not linear; see `Part.refuses`."""
        if objective.gradient != "literal":
            return None
        return "the minimum prefix ratio is used under stop-gradient and has no literal gradient"
