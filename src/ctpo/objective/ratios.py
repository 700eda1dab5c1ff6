"""Importance weights: which product of token ratios stands in front of a token's advantage.

Every ratio starts from the token log ratio log r_t = log π_θ(a_t|s_t) - log π_old(a_t|s_t), which
is 0 where the mask is 0. t counts policy tokens only, from 1, through all turns: a hole in the mask
neither enters a product nor advances t.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor


def policy_positions(mask: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
    """Return t, the number of policy tokens up to and including each place.

    Args:
        mask: True on policy tokens.

    Returns:
        1-based positions on policy tokens. A masked place carries the position before it.
    """
    return mask.cumsum(dim=1)


@dataclass(frozen=True)
class Ratio(ABC):
    """An importance weight w_t, made of n_t token ratios.

    A window in log space widens with n_t (see `LogWindow`): a sum of n roughly independent terms
    spreads like √n.
    """

    accumulates: ClassVar[bool]
    """Whether n_t depends on the token. If not, a window cannot widen with it."""

    @abstractmethod
    def log_weight(
        self, log_ratio: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """Return log w_t in nats.

        Args:
            log_ratio: log r_t, 0 where the mask is False.
            mask: True on policy tokens.

        Returns:
            log w_t, meaningful on policy tokens only.
        """

    @abstractmethod
    def factors(self, mask: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
        """Return n_t, the number of token ratios whose product w_t is.

        Args:
            mask: True on policy tokens.

        Returns:
            n_t, at least 1 on policy tokens.
        """


@dataclass(frozen=True)
class TokenRatio(Ratio):
    """Token ratio: w_t = r_t, n_t = 1.

    Low variance, and biased: it ignores that the prefix was drawn from π_old.
    Source: PPO, arXiv 1707.06347; GRPO, arXiv 2402.03300.
    """

    accumulates: ClassVar[bool] = False

    def log_weight(
        self, log_ratio: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """Return log r_t; see `Ratio.log_weight`."""
        return log_ratio

    def factors(self, mask: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
        """Return 1 everywhere; see `Ratio.factors`."""
        return torch.ones_like(mask, dtype=torch.int64)


@dataclass(frozen=True)
class CumulativeRatio(Ratio):
    """Cumulative ratio: w_t = ρ_t = ∏_{j≤t} r_j, n_t = t.

    Unbiased for the token-level term A(s_t,a_t) ∇log π_θ(a_t|s_t) given the advantage function,
    with less variance than the full-sequence ratio. With a *sampled* return in place of A it is the
    gradient of the surrogate J(π_old) + Σ_t E_old[ρ_t A_old], not of J itself.
    Source: CTPO, arXiv 2605.07331, propositions 1 and 2.
    """

    accumulates: ClassVar[bool] = True

    def log_weight(
        self, log_ratio: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """Return log ρ_t; see `Ratio.log_weight`."""
        return log_ratio.cumsum(dim=1)

    def factors(self, mask: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
        """Return t; see `Ratio.factors`."""
        return policy_positions(mask)


@dataclass(frozen=True)
class FullSequenceRatio(Ratio):
    """Full-sequence ratio: w_t = ρ_H = ∏_{j≤H} r_j for every token, n_t = H.

    Unbiased, and of the highest variance: the factors after t have mean 1 and only add noise to a
    given advantage.
    Source: the sequence-level estimator that CTPO, arXiv 2605.07331, compares with.
    """

    accumulates: ClassVar[bool] = True

    def log_weight(
        self, log_ratio: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """Return log ρ_H; see `Ratio.log_weight`."""
        return log_ratio.sum(dim=1, keepdim=True).expand_as(log_ratio)

    def factors(self, mask: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
        """Return H; see `Ratio.factors`."""
        return mask.sum(dim=1, keepdim=True).expand_as(mask)


@dataclass(frozen=True)
class SequenceGeometricMeanRatio(Ratio):
    """Geometric mean over the response: w_t = (∏_{j≤H} r_j)^(1/H) for every token.

    Low variance, and biased by the rescaling. It is of the scale of one factor, so n_t = 1: GSPO's
    published window is fixed.
    Source: GSPO, arXiv 2507.18071; the token form sg[w] π_θ/sg[π_θ].
    """

    accumulates: ClassVar[bool] = False

    def log_weight(
        self, log_ratio: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T"]:
        """Return (1/H) Σ_{j≤H} log r_j; see `Ratio.log_weight`."""
        # 0/0 in a row without policy tokens, where the weight has no meaning.
        length = mask.sum(dim=1, keepdim=True)
        return (log_ratio.sum(dim=1, keepdim=True) / length).expand_as(log_ratio)

    def factors(self, mask: Bool[Tensor, "B T"]) -> Int[Tensor, "B T"]:
        """Return 1 everywhere; see `Ratio.factors`."""
        return torch.ones_like(mask, dtype=torch.int64)
