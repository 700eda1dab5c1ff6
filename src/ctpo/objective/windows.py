"""Trust regions: where an importance weight may move before it is clipped.

A window measures a *statistic* s_t of the weights and puts bounds on it. Usually the statistic is
the log weight itself, so that clipping is decided on raw log ratios and nothing overflows or is
rounded on the way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from ctpo.objective.parameters import require, require_numbers
from ctpo.objective.parts import Bounds, Choices, Window
from ctpo.objective.ratios import CumulativeRatio

if TYPE_CHECKING:
    from jaxtyping import Real
    from torch import Tensor

    from ctpo.objective.layout import Layout


@dataclass(frozen=True, kw_only=True)
class LogWindow(Window):
    """Window in log space that follows the number of factors n.

    exp(-eps_low · n^power) ≤ w ≤ exp(eps_high · n^power), and w ≤ exp(dual_clip · n^power) where
    the advantage is negative.

    With `power=0.5` the window follows the spread of a product's log, which grows like √n for
    roughly independent token ratios; with `power=-0.5` that of a geometric mean's, which shrinks;
    with `power=0` it is fixed.
    Source: CTPO, arXiv 2605.07331; `dual_clip` is in its public code only.

    Attributes:
        eps_low: Half-width below 0 in nats for one factor; `inf` leaves that side open.
        eps_high: Half-width above 0 in nats for one factor; `inf` leaves that side open.
        power: Exponent of n. Raising it lets late tokens move further.
        dual_clip: Base c of exp(c · n^power), the cap for negative advantages; None switches it
            off, and a token of negative advantage then has no upper bound.

    Raises:
        TypeError: If a parameter is no number.
        ValueError: If a parameter is out of range; names the field, its value and what is right.
    """

    eps_low: float
    eps_high: float
    power: float
    dual_clip: float | None = None

    def __post_init__(self) -> None:
        require_numbers(self)
        for name, example, bound in (
            ("eps_low", 0.025, "lower bound is exp(-eps_low * n**power)"),
            ("eps_high", 0.05, "upper bound is exp(eps_high * n**power)"),
        ):
            right = f"at least 0, e.g. {example}: the {bound}"
            require(getattr(self, name) >= 0, self, name, right)
        require(
            -math.inf < self.power < math.inf,
            self,
            "power",
            "finite, e.g. 0.5 for a window that widens like the square root of n, or 0 for a "
            "fixed one",
        )
        require(
            self.dual_clip is None or 0 < self.dual_clip < math.inf,
            self,
            "dual_clip",
            "finite and above 0, e.g. 0.05 (the base c of exp(c * n**power)), or None to switch it "
            "off",
        )

    @property
    def follows_position(self) -> bool:
        """Whether the bounds depend on n: they do unless `power` is 0."""
        return self.power != 0

    def bounds(self, factors: Real[Tensor, "*tokens"]) -> Bounds:
        """Return ∓eps · n^power; see `Window.bounds`."""
        # A masked place can have n = 0, and 0 to a negative power is infinite.
        scale = factors.clamp(min=1.0) ** self.power
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
        TypeError: If a parameter is no number.
        ValueError: If a parameter is out of range; names the field, its value and what is right.
    """

    clip_low: float
    clip_high: float
    dual_clip: float | None = None

    def __post_init__(self) -> None:
        require_numbers(self)
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
    def follows_position(self) -> bool:
        """Whether the bounds depend on n: never."""
        return False

    def bounds(self, factors: Real[Tensor, "*tokens"]) -> Bounds:
        """Return log(1 - clip_low), log(1 + clip_high), log(dual_clip); see `Window.bounds`."""
        one = factors.new_ones(()) * 1.0
        low = math.log1p(-self.clip_low) if self.clip_low < 1 else -math.inf
        dual = math.inf if self.dual_clip is None else math.log(self.dual_clip)
        return Bounds(one * low, one * math.log1p(self.clip_high), one * dual)


@dataclass(frozen=True, kw_only=True)
class DriftFreeWindow(LogWindow):
    """√n window on the martingale M_t = Σ_{j≤t} (r_j - 1) in place of log ρ_t.

    -eps_low · t^power ≤ M_t ≤ eps_high · t^power, and M_t ≤ dual_clip · t^power where the advantage
    is negative: the bounds of a `LogWindow`, for another statistic.

    E_old[log r] = -KL < 0, so log ρ_t drifts down in proportion to t and leaves any window that
    widens like √t at its lower side. E_old[r] = 1, so M_t has mean 0 at every t and, to first
    order, the spread of log ρ_t. A variant of ours, not of the paper's.

    Attributes:
        power: Exponent of t.
    """

    bounds_log_weight: ClassVar[bool] = False

    power: float = 0.5

    @property
    def follows_position(self) -> bool:
        """Whether the statistic or its bounds depend on t: always, as it is a sum up to t."""
        return True

    def statistic(self, log_weight: Tensor, log_ratio: Tensor, layout: Layout) -> Tensor:
        """Return M_t; see `Window.statistic`."""
        # 0 where masked, as log r is; capped only against overflow, far outside any window.
        return layout.prefix_sums(torch.expm1(log_ratio.clamp(max=_EXP_LIMIT)))

    def refuses(self, objective: Choices) -> str | None:
        """Refuse any ratio but the cumulative one; see `Part.refuses`."""
        return _unless_cumulative(self, objective)


@dataclass(frozen=True, kw_only=True)
class KLWindow(Window):
    """Window on the divergence of the weight itself: w - 1 - log w ≤ delta · n.

    w - 1 - log w is the unbiased, never negative estimate (k3) of KL(π_old‖π_θ) over the prefix, so
    delta is a budget of KL per token. To second order this is the √n window with ε = √(2 delta).
    The statistic is sign(log w) · √(w - 1 - log w), which is monotone in w. A variant of ours.

    Attributes:
        delta_low: Budget in nats per factor for weights below 1, where the advantage is negative.
        delta_high: Budget for weights above 1, where the advantage is positive.
        delta_dual: Budget for weights above 1 where the advantage is negative; None switches it
            off.

    Raises:
        TypeError: If a parameter is no number.
        ValueError: If a parameter is out of range; names the field, its value and what is right.
    """

    bounds_log_weight: ClassVar[bool] = False

    delta_low: float
    delta_high: float
    delta_dual: float | None = None

    def __post_init__(self) -> None:
        require_numbers(self)
        for name in ("delta_low", "delta_high"):
            require(
                getattr(self, name) >= 0,
                self,
                name,
                "at least 0, e.g. 0.00125, which is (0.05)**2 / 2: the same window as "
                "eps = 0.05 to second order",
            )
        require(
            self.delta_dual is None or 0 < self.delta_dual < math.inf,
            self,
            "delta_dual",
            "finite and above 0, e.g. 0.00125, or None to switch it off",
        )

    @property
    def follows_position(self) -> bool:
        """Whether the bounds depend on n: always."""
        return True

    def statistic(self, log_weight: Tensor, log_ratio: Tensor, layout: Layout) -> Tensor:
        """Return the signed root of w - 1 - log w; see `Window.statistic`."""
        capped = log_weight.clamp(max=_EXP_LIMIT)
        divergence = torch.expm1(capped) - capped
        # expm1(x) - x cancels near 0, where its series is exact enough: the error is under x^5/60.
        series = capped.square() * (0.5 + capped / 6 + capped.square() / 24)
        small = capped.abs() < 0.03
        return torch.where(small, series, divergence).clamp(min=0).sqrt().copysign(log_weight)

    def bounds(self, factors: Real[Tensor, "*tokens"]) -> Bounds:
        """Return ∓√(delta · n); see `Window.bounds`."""
        root = factors.clamp(min=1.0).sqrt()
        dual = math.inf if self.delta_dual is None else math.sqrt(self.delta_dual)
        return Bounds(
            -math.sqrt(self.delta_low) * root, math.sqrt(self.delta_high) * root, dual * root
        )

    def refuses(self, objective: Choices) -> str | None:
        """Refuse any ratio but the cumulative one; see `Part.refuses`."""
        return _unless_cumulative(self, objective)


def sqrt(eps_low: float, eps_high: float, dual_clip: float | None = None) -> LogWindow:
    """Return the log-space window that widens like √n, CTPO's.

    Args:
        eps_low: As in `LogWindow`.
        eps_high: As in `LogWindow`.
        dual_clip: As in `LogWindow`.
    """
    return LogWindow(eps_low=eps_low, eps_high=eps_high, power=0.5, dual_clip=dual_clip)


def fixed(clip_low: float, clip_high: float, dual_clip: float | None = None) -> RatioWindow:
    """Return the fixed window in ratio space, PPO's.

    Args:
        clip_low: As in `RatioWindow`.
        clip_high: As in `RatioWindow`.
        dual_clip: As in `RatioWindow`.
    """
    return RatioWindow(clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip)


# A ratio of e^40 is outside every window; its square still fits float32.
_EXP_LIMIT = 40.0


def _unless_cumulative(window: Window, objective: Choices) -> str | None:
    # Exactly it: a subclass can have another weight.
    if type(objective.ratio) is CumulativeRatio:
        return None
    return f"{window!r} is about the cumulative ratio, not {objective.ratio!r}"
