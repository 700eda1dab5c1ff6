"""What an objective is made of: what a ratio, a window and a surrogate must say about themselves.

Ours are in `ratios`, `windows`, `surrogates` and `soft_surrogates`; yours are subclasses of the
same three classes. A part is a frozen dataclass whose fields are its parameters, and asks the
`Layout` for whatever runs along a sequence; so it is written once for padded, packed and cut
tokens. No graph is recorded while a part computes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Real
    from torch import Tensor

    from ctpo.objective.layout import Layout


class Choices(Protocol):
    """What an objective is made of, as a part sees it that is asked whether it goes with the rest.

    Attributes:
        ratio: The ratio.
        window: The window, if there is one.
        surrogate: The surrogate.
        gradient: `"token-local"` or `"literal"`.
        mismatch: The weight against the generating engine, if there is one.
    """

    @property
    def ratio(self) -> Ratio: ...  # noqa: D102 - above
    @property
    def window(self) -> Window | None: ...  # noqa: D102
    @property
    def surrogate(self) -> Surrogate: ...  # noqa: D102
    @property
    def gradient(self) -> str: ...  # noqa: D102
    @property
    def mismatch(self) -> object | None: ...  # noqa: D102


class Part:
    """A choice of an objective."""

    def refuses(self, objective: Choices) -> str | None:
        """Return why this part does not go with the others of an objective; None if it does.

        What follows from the attributes below is checked for every part; here is the place for
        what they do not say.

        Args:
            objective: The choices.
        """
        return None


@dataclass(frozen=True)
class Ratio(Part, ABC):
    """An importance weight w_t, made of n_t token ratios.

    A window in log space follows n_t (see `LogWindow`): a sum of n roughly independent terms
    spreads like √n, their mean like 1/√n.
    """

    accumulates: ClassVar[bool] = False
    """Whether n_t depends on the token. If so, `factors` says how; if not, a window cannot follow
    it."""

    @abstractmethod
    def log_weight(
        self, log_ratio: Float[Tensor, "*tokens"], layout: Layout
    ) -> Float[Tensor, "*tokens"]:
        """Return log w_t in nats.

        Args:
            log_ratio: log r_t, 0 where the mask is False; not to be changed in place.
            layout: Where sequences begin and end.

        Returns:
            log w_t, meaningful on policy tokens only; broadcasts to `*tokens`.
        """

    def adjoint(
        self, gradient: Float[Tensor, "*tokens"], layout: Layout
    ) -> Float[Tensor, "*tokens"]:
        """Return dL/dlog r_j = Σ_t dL/dlog w_t · ∂log w_t/∂log r_j, for the literal gradient.

        A ratio that does not say it has the token-local gradient only.

        Args:
            gradient: dL/dlog w_t, 0 where masked.
            layout: Where sequences begin and end.

        Raises:
            NotImplementedError: If the ratio has none, e.g. because log w is not linear in log r.
        """
        raise NotImplementedError(f"{self!r} has no literal gradient")

    def factors(self, layout: Layout) -> Real[Tensor, "*tokens"]:
        """Return n_t, the number of token ratios in w_t, at least 1 on policy tokens.

        Args:
            layout: Where sequences begin and end.

        Returns:
            n_t; broadcasts to `*tokens`.
        """
        return torch.ones((), device=layout.mask.device)


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
class Window(Part, ABC):
    """A trust region around weight 1, as a function of the number of factors n in the weight."""

    bounds_log_weight: ClassVar[bool] = True
    """Whether the statistic is log w, so that a clipped weight has a value: the bound."""

    @property
    @abstractmethod
    def follows_position(self) -> bool:
        """Whether the bounds depend on n."""

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
                least 1 on policy tokens and anything from 0 elsewhere.

        Returns:
            Bounds, in the dtype of `factors` if that is floating point, else float32.
        """


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
class Surrogate(Part, ABC):
    """What the loss of a token is, given its weight, its advantage and its window."""

    takes_window: ClassVar[bool]
    """Whether it needs a window; if not, it must have none."""

    needs_weight_bound: ClassVar[bool] = True
    """Whether it takes the window's bounds for bounds of log w, which those of a window with a
    statistic of its own are not."""

    has_literal_gradient: ClassVar[bool] = False
    """Whether the printed objective has a gradient through the weight, beyond the token's own."""

    @abstractmethod
    def terms(self, tokens: Tokens, window: Window | None) -> TokenTerms:
        """Return loss and slope per token.

        Args:
            tokens: The batch; not to be changed in place.
            window: The trust region; None exactly if `takes_window` is false.
        """
