"""The objective: a ratio, a window and a surrogate make a loss per token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeVar

import torch

from ctpo.objective import fused
from ctpo.objective.inputs import Batch, prepare
from ctpo.objective.layout import Packed
from ctpo.objective.mismatch import Mismatch
from ctpo.objective.parameters import unknown_name
from ctpo.objective.ratios import (
    CumulativeGeometricMeanRatio,
    CumulativeRatio,
    FullSequenceRatio,
    MinimumPrefixRatio,
    Ratio,
    SequenceGeometricMeanRatio,
    TokenRatio,
)
from ctpo.objective.reductions import reduce
from ctpo.objective.soft_surrogates import (
    CISPOSurrogate,
    CPPOSurrogate,
    GMPOSurrogate,
    SAPOSurrogate,
    TOPRSurrogate,
    VESPOSurrogate,
)
from ctpo.objective.statistics import PositionStatistics
from ctpo.objective.surrogates import (
    ClippedSurrogate,
    PlainSurrogate,
    Surrogate,
    Tokens,
    weight_of,
)
from ctpo.objective.windows import Window

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Real
    from torch import Tensor
    from torch.distributed import ProcessGroup

    from ctpo.objective.inputs import Ragged
    from ctpo.objective.layout import Layout

RATIOS: dict[str, type[Ratio]] = {
    "token": TokenRatio,
    "cumulative": CumulativeRatio,
    "cumulative-geometric-mean": CumulativeGeometricMeanRatio,
    "full-sequence": FullSequenceRatio,
    "sequence-geometric-mean": SequenceGeometricMeanRatio,
    "minimum-prefix": MinimumPrefixRatio,
}
"""The ratios by name."""

SURROGATES: dict[str, type[Surrogate]] = {
    "clip": ClippedSurrogate,
    "plain": PlainSurrogate,
    "cispo": CISPOSurrogate,
    "sapo": SAPOSurrogate,
    "topr": TOPRSurrogate,
    "vespo": VESPOSurrogate,
    "gmpo": GMPOSurrogate,
    "cppo": CPPOSurrogate,
}
"""The surrogates by name."""


TokensT = TypeVar("TokensT", torch.Tensor, list[torch.Tensor])
"""Tokens as the caller lays them out: [B, T] or [N], or a list of [T_i]."""


class Sequences(NamedTuple):
    """What the batch says about each sequence, [S] each.

    Attributes:
        lengths: Policy tokens H.
        log_ratio: Σ_t log r_t in nats.
        k1: Estimate of KL(π_old‖π_θ) from this one sequence, -Σ_t log r_t: unbiased, of either
            sign.
        k3: The same by Σ_t (r_t - 1 - log r_t): unbiased and never negative.
    """

    lengths: Int[Tensor, " S"]
    log_ratio: Float[Tensor, " S"]
    k1: Float[Tensor, " S"]
    k3: Float[Tensor, " S"]


@dataclass(frozen=True, eq=False)
class ObjectiveOutput(Generic[TokensT]):
    """What an objective says about a batch.

    Attributes:
        per_token: Loss per token in the caller's layout, 0 where masked, differentiable in
            `logprobs`.
    """

    per_token: TokensT
    _loss: Float[Tensor, "*tokens"]
    _log_ratio: Float[Tensor, "*tokens"]
    _log_weight: Float[Tensor, "*tokens"]
    _layout: Layout
    _pieces: list[int] | None
    _statistics: PositionStatistics | None

    @property
    def mask(self) -> TokensT:
        """True on policy tokens, in the caller's layout."""
        mask: TokensT = _in_pieces(self._layout.mask, self._pieces)
        return mask

    @property
    def weights(self) -> TokensT:
        """Importance weight w_t before clipping, 0 where masked, in the caller's layout."""
        every = weight_of(self._log_weight.expand_as(self._loss))
        weights: TokensT = _in_pieces(torch.where(self._layout.mask, every, 0.0), self._pieces)
        return weights

    @property
    def statistics(self) -> PositionStatistics:
        """Sums by position; on the device until they are read.

        Raises:
            RuntimeError: If the call said `statistics=False`.
        """
        if self._statistics is None:
            raise RuntimeError("no statistics: the objective was called with statistics=False")
        return self._statistics

    def sequences(self) -> Sequences:
        """Return log ratio and KL estimates per sequence; of shards, over all ranks."""
        layout, log_ratio = self._layout, self._log_ratio
        totals = layout.totals(log_ratio).flatten()
        k3 = layout.totals(torch.expm1(log_ratio) - log_ratio).flatten()
        return Sequences(layout.lengths.flatten(), totals, -totals, k3)

    def mean(self, reduction: str) -> Float[Tensor, ""]:
        """Return the loss of the batch, differentiable in `logprobs`.

        Of shards cut over ranks it is this rank's part: the parts of all ranks add up to the loss,
        and each has the gradient of its own tokens.

        Args:
            reduction: A key of `REDUCTIONS`, e.g. `"seq-mean-token-mean"`.

        Raises:
            ValueError: If there is no such reduction; names the nearest one.
        """
        sums = self._layout.per_sequence(self._loss)
        return reduce(sums, self._layout.lengths.flatten(), reduction)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A policy-gradient objective: which weight, which trust region, what happens at its edge.

    L_t = surrogate(w_t, A_t, window(n_t)) · mismatch_t.

    ```python
    Objective(ratio="cumulative", surrogate="cispo", window=sqrt(0.025, 0.05))
    ```

    Attributes:
        ratio: Which importance weight w_t stands in front of the advantage; an instance, or a key
            of `RATIOS`.
        window: Between which bounds w_t may move, given its number of factors n_t; None exactly
            for surrogates that have none.
        surrogate: What becomes of a token outside; an instance, or a key of `SURROGATES` with its
            default parameters.
        gradient: `"token-local"`: that of token t flows through log π_θ(a_t|s_t) only, as in the
            theory and in CTPO's public code. `"literal"`: the derivative of the objective as it is
            printed, in which every token of w_t gets its share (for the cumulative ratio, every
            prefix token gets ρ_t A_t).
        mismatch: Weight against the generating engine; then calls need `rollout_logprobs`.

    Raises:
        TypeError: If a choice is not of its kind.
        ValueError: If a name is unknown, or choices do not go together: one would have no effect or
            contradicts another.
    """

    ratio: Ratio
    window: Window | None = None
    surrogate: Surrogate = ClippedSurrogate()
    gradient: Literal["token-local", "literal"] = "token-local"
    mismatch: Mismatch | None = None

    if TYPE_CHECKING:  # names are accepted too

        def __init__(
            self,
            *,
            ratio: Ratio | str,
            window: Window | None = None,
            surrogate: Surrogate | str = "clip",
            gradient: Literal["token-local", "literal"] = "token-local",
            mismatch: Mismatch | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        for name, kind, known in (
            ("ratio", Ratio, RATIOS),
            ("surrogate", Surrogate, SURROGATES),
        ):
            object.__setattr__(self, name, _named(name, getattr(self, name), kind, known))
        for name, optional in (("window", Window), ("mismatch", Mismatch)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, optional):
                raise TypeError(
                    f"{name} must be an instance of {optional.__name__} or None, got {value!r}"
                )
        if self.gradient not in ("token-local", "literal"):
            raise unknown_name("gradient", str(self.gradient), ("token-local", "literal"))
        _refuse_senseless(self)

    def __call__(
        self,
        logprobs: TokensT,
        old_logprobs: Float[Tensor, "*tokens"] | Sequence[Float[Tensor, " T_i"]],
        advantages: Float[Tensor, " S"] | Float[Tensor, "*tokens"] | Sequence[Float[Tensor, " T"]],
        mask: Bool[Tensor, "*tokens"] | Real[Tensor, "*tokens"] | Sequence[Bool[Tensor, " T_i"]],
        *,
        cu_seqlens: Int[Tensor, " S+1"] | None = None,
        rollout_logprobs: Ragged | None = None,
        process_group: ProcessGroup | None = None,
        statistics: bool = True,
        check: bool = False,
    ) -> ObjectiveOutput[TokensT]:
        """Return the loss of every token.

        Tokens come padded, [B, T] (on either side), packed, [N] with `cu_seqlens`, or as a list of
        [T_i]; the result is the same. Computes in float32, or in float64 if `logprobs` is float64.
        Hand over log-probs in float32: bfloat16 rounds them by up to 0.031, which is more than
        CTPO's window at t = 1. Nothing is read back to the host from a GPU unless `check` is true.
        What stands at masked places, NaN included, changes nothing.

        Args:
            logprobs: log π_θ(a_t|s_t) in nats; the gradient flows to these.
            old_logprobs: log π_old(a_t|s_t) in nats, of the trainer; taken as constants.
            advantages: One advantage per response or per token; taken as constants.
            mask: 1 on the tokens that the policy generated; 0 on prompt, tool output, template and
                padding, all of which neither enter a ratio nor advance a position.
            cu_seqlens: For packed tokens: where sequences begin and the last one ends.
            rollout_logprobs: log μ(a_t|s_t) in nats of the engine that generated; needed exactly
                if the objective has a `mismatch`.
            process_group: For sequences that are cut along their length over ranks (context or
                sequence parallelism): the ranks, in the order of the pieces, equally long. Of
                packed tokens, `cu_seqlens` is then the global one.
            statistics: Whether to collect `ObjectiveOutput.statistics`; false saves their cost.
            check: Whether to read the values too, and raise on what would poison the loss. Costs
                host syncs.

        Returns:
            The loss per token and what goes with it.

        Raises:
            TypeError: If an argument is not a tensor or not of a usable dtype.
            ValueError: If shapes or devices do not fit, the batch is empty, an argument is missing
                or without effect; with `check`, also if a policy token has a NaN or infinite value,
                or the mask a value other than 0 and 1 (on a CPU the mask is always checked).
        """
        if (rollout_logprobs is None) != (self.mismatch is None):
            raise ValueError(
                "rollout_logprobs has no effect without a mismatch weight; give the objective one, "
                'e.g. mismatch=Mismatch(level="prefix")'
                if self.mismatch is None
                else f"{self.mismatch!r} needs rollout_logprobs"
            )
        batch = prepare(
            logprobs,
            old_logprobs,
            advantages,
            mask,
            rollout_logprobs=rollout_logprobs,
            cu_seqlens=cu_seqlens,
            process_group=process_group,
            check=check,
        )
        layout = batch.layout
        if fused.supports(self, batch):
            edges = layout.edges if isinstance(layout, Packed) else None
            value, slope, log_ratio, log_weight, collected = fused.forward(
                self.ratio,
                self.window,
                batch.logprobs,
                batch.old_logprobs,
                batch.advantages,
                layout.mask,
                edges,
                statistics=statistics,
            )
        else:
            value, slope, log_ratio, log_weight, collected = self._forward(batch, statistics)
        literal = self.ratio if self.gradient == "literal" else None
        loss: Tensor = _WithSlope.apply(  # type: ignore[no-untyped-call]
            batch.logprobs, value, slope, literal, layout
        )
        return ObjectiveOutput(
            _in_pieces(loss, batch.pieces),
            loss,
            log_ratio,
            log_weight,
            layout,
            batch.pieces,
            collected,
        )

    @torch.no_grad()
    def _forward(
        self, batch: Batch, statistics: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, PositionStatistics | None]:
        """Return loss, slope, log ratio, log weight and statistics: the reference."""
        layout = batch.layout
        dtype = torch.float64 if batch.logprobs.dtype == torch.float64 else torch.float32
        current, old = batch.logprobs.detach().to(dtype), batch.old_logprobs.to(dtype)
        # Filled and not multiplied: NaN times 0 is NaN, in the value and in the gradient.
        log_ratio = (current - old).masked_fill_(layout.outside, 0.0)
        tokens = Tokens(
            current,
            log_ratio,
            self.ratio.log_weight(log_ratio, layout),
            batch.advantages.to(dtype),
            self.ratio.factors(layout).to(dtype),
            layout,
        )
        terms = self.surrogate.terms(tokens, self.window)
        value, slope = terms.value, terms.slope
        if batch.rollout_logprobs is not None:
            assert self.mismatch is not None
            factor = self.mismatch.weights(old, batch.rollout_logprobs.to(dtype), layout)
            value, slope = value * factor, slope * factor
        # A masked place has its row's weight and an advantage that can be NaN, yet no loss.
        value, slope = _zero(value, layout.outside), _zero(slope, layout.outside)
        collected = None
        if statistics:
            is_rho = isinstance(self.ratio, CumulativeRatio)
            log_rho = tokens.log_weight if is_rho else layout.prefix_sums(log_ratio)
            collected = PositionStatistics.collect(tokens, log_rho, terms)
        return value, slope, log_ratio, tokens.log_weight, collected


class _WithSlope(torch.autograd.Function):
    """A value with a given derivative: no graph inside, one pass back."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        logprobs: Tensor,
        value: Tensor,
        slope: Tensor,
        literal: Ratio | None,
        layout: Layout,
    ) -> Tensor:
        ctx.save_for_backward(slope)
        ctx.literal, ctx.layout, ctx.dtype = literal, layout, logprobs.dtype
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:  # noqa: ANN401
        (slope,) = ctx.saved_tensors
        result = gradient * slope
        if ctx.literal is not None:
            mask = ctx.layout.mask
            result = torch.where(mask, ctx.literal.adjoint(result, ctx.layout), 0.0)
        return result.to(ctx.dtype), None, None, None, None


def _zero(fresh: Tensor, outside: Tensor) -> Tensor:
    """Return it with zeros at some places; in place if it is not broadcast."""
    if fresh.shape == outside.shape:
        return fresh.masked_fill_(outside, 0.0)
    return fresh.expand_as(outside).masked_fill(outside, 0.0)


def _in_pieces(tensor: Tensor, pieces: list[int] | None) -> Any:  # noqa: ANN401 - as handed over
    return tensor if pieces is None else list(torch.split(tensor, pieces))


def _named(name: str, value: object, kind: type, known: dict[str, type[Any]]) -> object:
    if isinstance(value, str):
        if value not in known:
            raise unknown_name(name, value, known)
        return known[value]()
    if not isinstance(value, kind):
        raise TypeError(
            f"{name} must be an instance of {kind.__name__} or one of {', '.join(known)}, got "
            f"{value!r}"
        )
    return value


def _refuse_senseless(objective: Objective) -> None:
    """Raise if choices contradict each other, or one would have no effect."""
    ratio, window, surrogate = objective.ratio, objective.window, objective.surrogate
    if window is None and surrogate.takes_window:
        raise ValueError(
            f"{surrogate!r} needs a window, e.g. sqrt(0.025, 0.05); without a trust region the "
            "surrogate is 'plain'"
        )
    if window is not None and not surrogate.takes_window:
        raise ValueError(f"{window!r} would have no effect on {surrogate!r}; leave it out")
    if window is not None and window.follows_position and not ratio.accumulates:
        raise ValueError(
            f"{window!r} follows the number of factors in the weight, but {ratio!r} is of the "
            "scale of one factor at every token, so power would have no effect; set power=0"
        )
    if window is not None and not window.bounds_log_weight:
        if not isinstance(surrogate, ClippedSurrogate):
            raise ValueError(
                f"{window!r} decides which tokens are clipped and has no bound of the weight for "
                f"{surrogate!r} to clip to; it goes with surrogate='clip'"
            )
        if not isinstance(ratio, CumulativeRatio):
            raise ValueError(f"{window!r} is about the cumulative ratio, not {ratio!r}")
    if isinstance(surrogate, GMPOSurrogate):
        if not isinstance(ratio, SequenceGeometricMeanRatio):
            raise ValueError(
                f"{surrogate!r} is a geometric mean over the sequence; set "
                f"ratio='sequence-geometric-mean', not {ratio!r}"
            )
        if getattr(window, "dual_clip", None) is not None:
            raise ValueError("dual_clip would have no effect on GMPO; set dual_clip=None")
    if isinstance(surrogate, CISPOSurrogate) and getattr(window, "dual_clip", None) is not None:
        raise ValueError(
            "dual_clip would have no effect on CISPO, whose upper bound holds for both signs of "
            "the advantage; set dual_clip=None"
        )
    if isinstance(surrogate, CPPOSurrogate) and not isinstance(ratio, TokenRatio):
        raise ValueError(f"{surrogate!r} weighs tokens by their own ratio; set ratio='token'")
    if objective.gradient == "literal":
        if not surrogate.has_literal_gradient:
            raise ValueError(
                f"{surrogate!r} is printed with its weight under stop-gradient, so its literal "
                "gradient is the token-local one; leave gradient out"
            )
        if isinstance(ratio, TokenRatio):
            raise ValueError(
                "the literal gradient of a token ratio is the token-local one; leave gradient out"
            )
        if isinstance(ratio, MinimumPrefixRatio):
            raise ValueError(
                "the minimum prefix ratio is used under stop-gradient and has no literal gradient"
            )
