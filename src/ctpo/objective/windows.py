"""Trust regions: where an importance weight may move before it is clipped.

A window measures a *statistic* s_t of the weights and puts bounds on it. Usually the statistic is
the log weight itself, so that clipping is decided on raw log ratios and nothing overflows or is
rounded on the way.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch

from ctpo.objective.parameters import require

if TYPE_CHECKING:
    from jaxtyping import Float, Real
    from torch import Tensor

    from ctpo.objective.layout import Layout


class Bounds(NamedTuple):
    """Bounds of a window's statistic; each broadcasts to `*tokens`.

    Attributes:
        low: Lower bound, at most 0; acts on negative advantages.
        high: Upper bound, at least 0; acts on positive advantages.
        dual: Upper bound for negative advantages; +inf where there is none.
    """

    low: Float[Tensor, "*tokens"]
    high: Float[Tensor, "*tokens"]
    dual: Float[Tensor, "*tokens"]


@dataclass(frozen=True)
class Window(ABC):
    """A trust region around weight 1, as a function of the number of factors n in the weight."""

    @property
    @abstractmethod
    def follows_position(self) -> bool:
        """Whether the bounds depend on n."""

    @property
    def bounds_log_weight(self) -> bool:
        """Whether the statistic is log w, so that a clipped weight has a value: the bound."""
        return True

    def statistic(
        self,
        log_weight: Float[Tensor, "*tokens"],
        log_ratio: Float[Tensor, "*tokens"],
        layout: Layout,
    ) -> Float[Tensor, "*tokens"]:
        """Return s_t, which `bounds` bounds.

        Args:
            log_weight: log w_t in nats, raw.
            log_ratio: log r_t in nats, 0 where masked.
            layout: Where sequences begin and end.
        """
        return log_weight

    @abstractmethod
    def bounds(self, factors: Real[Tensor, "*tokens"]) -> Bounds:
        """Return the bounds of s_t per token.

        Args:
            factors: n, the number of token ratios in each token's weight (`Ratio.factors`), at
                least 1 on policy tokens.

        Returns:
            Bounds, in the dtype of `factors` if that is floating point, else float32.
        """


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
        ValueError: If a parameter is out of range; names the field, its value and what is right.
    """

    eps_low: float
    eps_high: float
    power: float
    dual_clip: float | None = None

    def __post_init__(self) -> None:
        _require_widths(self)
        require(
            -math.inf < self.power < math.inf,
            self,
            "power",
            "finite, e.g. 0.5 for a window that widens like the square root of n, or 0 for a "
            "fixed one",
        )
        _require_dual(self, "the base c of exp(c * n**power)")

    @property
    def follows_position(self) -> bool:
        """Whether the bounds depend on n: they do unless `power` is 0."""
        return self.power != 0

    def bounds(self, factors: Real[Tensor, "*tokens"]) -> Bounds:
        """Return ∓eps · n^power; see `Window.bounds`."""
        # A masked place can have n = 0, and 0 to a negative power is infinite.
        scale = _floating(factors).clamp(min=1) ** self.power
        return _scaled(self, scale)


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
    def follows_position(self) -> bool:
        """Whether the bounds depend on n: never."""
        return False

    def bounds(self, factors: Real[Tensor, "*tokens"]) -> Bounds:
        """Return log(1 - clip_low), log(1 + clip_high), log(dual_clip); see `Window.bounds`."""
        one = torch.ones((), dtype=_floating(factors).dtype, device=factors.device)
        low = math.log1p(-self.clip_low) if self.clip_low < 1 else -math.inf
        dual = math.inf if self.dual_clip is None else math.log(self.dual_clip)
        return Bounds(one * low, one * math.log1p(self.clip_high), one * dual)


@dataclass(frozen=True, kw_only=True)
class DriftFreeWindow(Window):
    """√n window on the martingale M_t = Σ_{j≤t} (r_j - 1) in place of log ρ_t.

    -eps_low · t^power ≤ M_t ≤ eps_high · t^power, and M_t ≤ dual_clip · t^power where the advantage
    is negative.

    E_old[log r] = -KL < 0, so log ρ_t drifts down in proportion to t and leaves any window that
    widens like √t at its lower side. E_old[r] = 1, so M_t has mean 0 at every t and, to first
    order, the spread of log ρ_t. A variant of ours, not of the paper's.

    Attributes:
        eps_low: Half-width below 0 for one factor; `inf` leaves that side open.
        eps_high: Half-width above 0 for one factor; `inf` leaves that side open.
        power: Exponent of t.
        dual_clip: Half-width above 0 for one factor where the advantage is negative; None switches
            it off.

    Raises:
        ValueError: If a parameter is out of range; names the field, its value and what is right.
    """

    eps_low: float
    eps_high: float
    power: float = 0.5
    dual_clip: float | None = None

    def __post_init__(self) -> None:
        _require_widths(self)
        require(-math.inf < self.power < math.inf, self, "power", "finite, e.g. 0.5")
        _require_dual(self, "the half-width for negative advantages")

    @property
    def follows_position(self) -> bool:
        """Whether the statistic or its bounds depend on t: always, as it is a sum up to t."""
        return True

    @property
    def bounds_log_weight(self) -> bool:
        """Whether the statistic is log w: it is not."""
        return False

    def statistic(self, log_weight: Tensor, log_ratio: Tensor, layout: Layout) -> Tensor:
        """Return M_t; see `Window.statistic`."""
        # 0 where masked, as log r is; capped only against overflow, far outside any window.
        return layout.prefix_sums(torch.expm1(log_ratio.clamp(max=_EXP_LIMIT)))

    def bounds(self, factors: Real[Tensor, "*tokens"]) -> Bounds:
        """Return ∓eps · t^power; see `Window.bounds`."""
        return _scaled(self, _floating(factors).clamp(min=1) ** self.power)


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
        ValueError: If a parameter is out of range; names the field, its value and what is right.
    """

    delta_low: float
    delta_high: float
    delta_dual: float | None = None

    def __post_init__(self) -> None:
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

    @property
    def bounds_log_weight(self) -> bool:
        """Whether the statistic is log w: it is not."""
        return False

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
        root = _floating(factors).clamp(min=1).sqrt()
        dual = math.inf if self.delta_dual is None else math.sqrt(self.delta_dual)
        return Bounds(
            -math.sqrt(self.delta_low) * root, math.sqrt(self.delta_high) * root, dual * root
        )


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


def _floating(factors: Tensor) -> Tensor:
    return factors if factors.is_floating_point() else factors.to(torch.float32)


def _scaled(window: LogWindow | DriftFreeWindow, scale: Tensor) -> Bounds:
    dual = math.inf if window.dual_clip is None else window.dual_clip
    return Bounds(-window.eps_low * scale, window.eps_high * scale, dual * scale)


def _require_widths(window: LogWindow | DriftFreeWindow) -> None:
    require(
        window.eps_low >= 0,
        window,
        "eps_low",
        "at least 0, e.g. 0.025: the lower bound is exp(-eps_low * n**power)",
    )
    require(
        window.eps_high >= 0,
        window,
        "eps_high",
        "at least 0, e.g. 0.05: the upper bound is exp(eps_high * n**power)",
    )


def _require_dual(window: LogWindow | DriftFreeWindow, meaning: str) -> None:
    require(
        window.dual_clip is None or 0 < window.dual_clip < math.inf,
        window,
        "dual_clip",
        f"finite and above 0, e.g. 0.05 ({meaning}), or None to switch it off",
    )
