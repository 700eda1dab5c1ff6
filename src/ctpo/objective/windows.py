"""Trust regions: between which bounds an importance weight may move before it is clipped.

All bounds are handed on as log weights, so that clipping is decided on raw log ratios and nothing
overflows or is rounded on the way.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from ctpo.objective.parameters import require

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


class Bounds(NamedTuple):
    """Bounds of the log weight, in nats, per token.

    Attributes:
        low: Lower bound, at most 0; acts on negative advantages.
        high: Upper bound, at least 0; acts on positive advantages.
        dual: Upper bound for negative advantages; +inf where there is none.
    """

    low: Float[Tensor, "B T"]
    high: Float[Tensor, "B T"]
    dual: Float[Tensor, "B T"]


@dataclass(frozen=True)
class Window(ABC):
    """A trust region around weight 1, as a function of the number of factors n in the weight."""

    @property
    @abstractmethod
    def widens(self) -> bool:
        """Whether the bounds depend on n."""

    @abstractmethod
    def bounds(self, factors: Float[Tensor, "B T"]) -> Bounds:
        """Return the bounds of log w per token.

        Args:
            factors: n, the number of token ratios in each token's weight (`Ratio.factors`).

        Returns:
            Log-space bounds, in the dtype of `factors`.
        """


@dataclass(frozen=True, kw_only=True)
class LogWindow(Window):
    """Window in log space that widens with the number of factors n.

    exp(-eps_low · n^power) ≤ w ≤ exp(eps_high · n^power), and w ≤ exp(dual_clip · n^power) where
    the advantage is negative.

    With `power=0.5` the window follows the spread of log w, which grows like √n for roughly
    independent token ratios; with `power=0` it is fixed.
    Source: CTPO, arXiv 2605.07331; `dual_clip` is in its public code only.

    Attributes:
        eps_low: Half-width below 0 in nats for one factor; `inf` leaves that side open.
        eps_high: Half-width above 0 in nats for one factor; `inf` leaves that side open.
        power: Exponent of n. Raising it lets late tokens move further.
        dual_clip: Base c of exp(c · n^power), the cap for negative advantages; None switches it
            off, and a token of negative advantage then has no upper bound.

    Raises:
        ValueError: If a parameter is out of range; names the field, its value and what is right.
    """

    eps_low: float
    eps_high: float
    power: float
    dual_clip: float | None = None

    def __post_init__(self) -> None:
        require(
            self.eps_low >= 0,
            self,
            "eps_low",
            "at least 0, e.g. 0.025: the lower bound is exp(-eps_low * n**power)",
        )
        require(
            self.eps_high >= 0,
            self,
            "eps_high",
            "at least 0, e.g. 0.05: the upper bound is exp(eps_high * n**power)",
        )
        require(
            0 <= self.power < math.inf,
            self,
            "power",
            "finite and at least 0, e.g. 0.5 for a window that widens like the square root of n, "
            "or 0 for a fixed one",
        )
        require(
            self.dual_clip is None or 0 < self.dual_clip < math.inf,
            self,
            "dual_clip",
            "finite and above 0, e.g. 0.05 (the base c of exp(c * n**power)), or None to switch "
            "it off",
        )

    @property
    def widens(self) -> bool:
        """Whether the bounds depend on n: they do unless `power` is 0."""
        return self.power != 0

    def bounds(self, factors: Float[Tensor, "B T"]) -> Bounds:
        """Return ∓eps · n^power; see `Window.bounds`."""
        scale = factors**self.power
        dual = math.inf if self.dual_clip is None else self.dual_clip
        return Bounds(-self.eps_low * scale, self.eps_high * scale, dual * scale)


@dataclass(frozen=True, kw_only=True)
class RatioWindow(Window):
    """Fixed window in ratio space.

    1 - clip_low ≤ w ≤ 1 + clip_high, and w ≤ dual_clip where the advantage is negative.

    Source: PPO, arXiv 1707.06347; unequal sides: DAPO, arXiv 2503.14476; the dual clip:
    arXiv 1912.09729.

    Attributes:
        clip_low: Width below 1; 1 leaves that side open, as a ratio is never negative.
        clip_high: Width above 1; `inf` leaves that side open.
        dual_clip: Largest ratio that counts where the advantage is negative (commonly 3.0); None
            switches it off.

    Raises:
        ValueError: If a parameter is out of range; names the field, its value and what is right.
    """

    clip_low: float
    clip_high: float
    dual_clip: float | None = None

    def __post_init__(self) -> None:
        require(
            0 <= self.clip_low <= 1,
            self,
            "clip_low",
            "between 0 and 1, e.g. 0.2: the lower bound is 1 - clip_low",
        )
        require(
            self.clip_high >= 0,
            self,
            "clip_high",
            "at least 0, e.g. 0.28: the upper bound is 1 + clip_high",
        )
        require(
            self.dual_clip is None or 1 < self.dual_clip < math.inf,
            self,
            "dual_clip",
            "a finite ratio above 1, e.g. 3.0, or None to switch it off",
        )

    @property
    def widens(self) -> bool:
        """Whether the bounds depend on n: never."""
        return False

    def bounds(self, factors: Float[Tensor, "B T"]) -> Bounds:
        """Return log(1 - clip_low), log(1 + clip_high), log(dual_clip); see `Window.bounds`."""
        low = math.log1p(-self.clip_low) if self.clip_low < 1 else -math.inf
        dual = math.inf if self.dual_clip is None else math.log(self.dual_clip)
        return Bounds(
            torch.full_like(factors, low),
            torch.full_like(factors, math.log1p(self.clip_high)),
            torch.full_like(factors, dual),
        )
