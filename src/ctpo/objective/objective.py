"""The objective: a ratio, a window and a surrogate make a loss per token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from ctpo.objective.combinations import refuse_senseless
from ctpo.objective.fused import dispatch
from ctpo.objective.inputs import Batch, prepare
from ctpo.objective.layout import Packed
from ctpo.objective.mismatch import Mismatch
from ctpo.objective.named.registry import RATIOS, SURROGATES, WINDOWS, named
from ctpo.objective.output import ObjectiveOutput, TokensT, in_pieces
from ctpo.objective.parameters import unknown_name
from ctpo.objective.parts import Part, Ratio, Surrogate, Tokens, Window
from ctpo.objective.ratios import CumulativeRatio
from ctpo.objective.statistics.positions import PositionStatistics
from ctpo.objective.surrogates import ClippedSurrogate

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Real
    from torch import Tensor
    from torch.distributed import ProcessGroup

    from ctpo.objective.inputs import Ragged
    from ctpo.objective.layout import Layout
    from ctpo.objective.named.names import RatioName, SurrogateName


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
        window: Between which bounds w_t may move, given its number of factors n_t; an instance, or
            a key of `WINDOWS`; None exactly for surrogates that have none.
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

    if TYPE_CHECKING:  # names are accepted too; type checkers want an instance of one of yours

        def __init__(
            self,
            *,
            ratio: Ratio | RatioName,
            window: Window | str | None = None,
            surrogate: Surrogate | SurrogateName = "clip",
            gradient: Literal["token-local", "literal"] = "token-local",
            mismatch: Mismatch | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        for name, kind, known in (
            ("ratio", Ratio, RATIOS),
            ("window", Window, WINDOWS),
            ("surrogate", Surrogate, SURROGATES),
        ):
            value = getattr(self, name)
            if name != "window" or value is not None:
                object.__setattr__(self, name, named(name, value, kind, known))
        if self.mismatch is not None and not isinstance(self.mismatch, Mismatch):
            raise TypeError(
                f"mismatch must be an instance of Mismatch or None, got {self.mismatch!r}"
            )
        if self.gradient not in ("token-local", "literal"):
            raise unknown_name("gradient", str(self.gradient), ("token-local", "literal"))
        refuse_senseless(self)

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
        fused: bool = False,
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
            fused: Whether to compute in one Triton kernel, which no GPU has run yet; `covers` in
                `ctpo.objective.fused.dispatch` says what it can. The result is the same.
            check: Whether to read the values too, and raise on what would poison the loss. Costs
                host syncs.

        Returns:
            The loss per token and what goes with it.

        Raises:
            TypeError: If an argument is not a tensor or not of a usable dtype.
            ValueError: If shapes or devices do not fit, the batch is empty, an argument is missing
                or without effect, or `fused` cannot compute this here; with `check`, also if a
                policy token has a NaN or infinite value or a log-prob above 0 by more than
                rounding, or the mask a value other than 0 and 1 (on a CPU the mask is always
                checked).
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
        if fused and not dispatch.supports(self, batch):
            raise ValueError(
                "fused=True cannot compute this: it needs tokens on a GPU, Triton, and one of the "
                "objectives that ctpo.objective.fused.dispatch.covers; leave it out"
            )
        if fused:
            edges = layout.edges if isinstance(layout, Packed) else None
            value, slope, log_ratio, log_weight, collected = dispatch.forward(
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
            in_pieces(loss, batch.pieces),
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
        log_ratio = _zero(current - old, layout.outside, ())
        log_weight = self.ratio.log_weight(log_ratio, layout)
        _require_tokens(log_weight, layout, self.ratio, "log_weight")
        tokens = Tokens(
            current,
            log_ratio,
            log_weight,
            batch.advantages.to(dtype),
            self.ratio.factors(layout).to(dtype),
            layout,
        )
        terms = self.surrogate.terms(tokens, self.window)
        value, slope = terms.value, terms.slope
        for each in (value, slope):
            _require_tokens(each, layout, self.surrogate, "terms")
        if batch.rollout_logprobs is not None:
            assert self.mismatch is not None
            factor = self.mismatch.weights(old, batch.rollout_logprobs.to(dtype), layout)
            value, slope = value * factor, slope * factor
        # A masked place has its row's weight and an advantage that can be NaN, yet no loss.
        callers = (batch.logprobs, batch.advantages)
        value, slope = (_zero(x, layout.outside, callers) for x in (value, slope))
        collected = None
        if statistics:
            # Exactly it: the weight of a subclass can be another.
            is_rho = type(self.ratio) is CumulativeRatio
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


def _zero(values: Tensor, outside: Tensor, callers: Sequence[Tensor]) -> Tensor:
    """Return it with zeros at some places, in place if it is whole and not the caller's."""
    storage = values.untyped_storage().data_ptr()
    ours = all(storage != tensor.untyped_storage().data_ptr() for tensor in callers)
    if ours and values.shape == outside.shape and values.is_contiguous():
        # On a CPU twice as fast as `masked_fill_`.
        return torch.where(outside, values.new_zeros(()), values, out=values)
    return torch.where(outside, 0.0, values)


def _require_tokens(values: Tensor, layout: Layout, part: Part, method: str) -> None:
    """Raise unless what a part returned broadcasts to the tokens."""
    shape, tokens = values.shape, layout.mask.shape
    if len(shape) > len(tokens) or any(
        size not in (1, all_) for size, all_ in zip(reversed(shape), reversed(tokens), strict=False)
    ):
        raise ValueError(
            f"{type(part).__name__}.{method} returned shape {list(shape)}, which does not "
            f"broadcast to the tokens, {list(tokens)}"
        )
