"""The objective: a ratio, a window and a surrogate make a loss per token."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from ctpo.objective.inputs import check_finite, check_mask_values, validate
from ctpo.objective.ratios import Ratio
from ctpo.objective.reductions import reduce
from ctpo.objective.statistics import PositionStatistics
from ctpo.objective.surrogates import ClippedSurrogate, Surrogate, weight_of
from ctpo.objective.windows import Window

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Real
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class ObjectiveOutput:
    """What an objective says about a batch.

    Attributes:
        per_token: Loss per token, 0 where masked, differentiable in `logprobs`.
        weights: Importance weight w_t before clipping, detached, 0 where masked.
        mask: True on policy tokens.
    """

    per_token: Float[Tensor, "B T"]
    weights: Float[Tensor, "B T"]
    mask: Bool[Tensor, "B T"]
    _statistics: PositionStatistics | None

    @property
    def statistics(self) -> PositionStatistics:
        """Sums by position; on the device until they are read.

        Raises:
            RuntimeError: If the call said `statistics=False`.
        """
        if self._statistics is None:
            raise RuntimeError("no statistics: the objective was called with statistics=False")
        return self._statistics

    def mean(self, reduction: str) -> Float[Tensor, ""]:
        """Return the loss of the batch, differentiable in `logprobs`.

        Args:
            reduction: A key of `REDUCTIONS`, e.g. `"seq-mean-token-mean"`.

        Raises:
            ValueError: If there is no such reduction; names the nearest one.
        """
        return reduce(self.per_token, self.mask, reduction)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A policy-gradient objective: which weight, which trust region, what happens at its edge.

    L_t = surrogate(w_t, A_t, window(n_t)), with the gradient of token t flowing through
    log π_θ(a_t|s_t) only.

    Attributes:
        ratio: Which importance weight w_t stands in front of the advantage.
        window: Between which bounds w_t may move, given its number of factors n_t.
        surrogate: What becomes of a token outside.

    Raises:
        TypeError: If a choice is not of its kind.
        ValueError: If a choice would have no effect: a window that widens with the number of
            factors, on a ratio that has one factor only.
    """

    ratio: Ratio
    window: Window
    surrogate: Surrogate = field(default_factory=ClippedSurrogate)

    def __post_init__(self) -> None:
        for name, kind in (("ratio", Ratio), ("window", Window), ("surrogate", Surrogate)):
            if not isinstance(getattr(self, name), kind):
                raise TypeError(
                    f"{name} must be an instance of {kind.__name__}, got {getattr(self, name)!r}"
                )
        if self.window.widens and not self.ratio.accumulates:
            raise ValueError(
                f"{self.window!r} widens with the number of factors in the weight, but "
                f"{self.ratio!r} is of the scale of one factor at every token, so power would "
                "have no effect; set power=0"
            )

    def __call__(
        self,
        logprobs: Float[Tensor, "B T"],
        old_logprobs: Float[Tensor, "B T"],
        advantages: Float[Tensor, " B"] | Float[Tensor, "B T"],
        mask: Bool[Tensor, "B T"] | Real[Tensor, "B T"],
        *,
        statistics: bool = True,
        check: bool = False,
    ) -> ObjectiveOutput:
        """Return the loss of every token.

        Computes in float32, or in float64 if `logprobs` is float64. Hand over log-probs in float32:
        bfloat16 rounds them by up to 0.031, which is more than CTPO's window at t = 1. Nothing is
        read back to the host unless `check` is true. What stands at masked places, NaN included,
        changes nothing.

        Args:
            logprobs: log π_θ(a_t|s_t) in nats; the gradient flows to these.
            old_logprobs: log π_old(a_t|s_t) in nats; taken as constants.
            advantages: One advantage per response or per token; taken as constants.
            mask: 1 on the tokens that the policy generated; 0 on prompt, tool output, template and
                padding, all of which neither enter a ratio nor advance a position.
            statistics: Whether to collect `ObjectiveOutput.statistics`; false saves their cost.
            check: Whether to read the values too, and raise on what would poison the loss. Costs
                host syncs.

        Returns:
            The loss per token and what goes with it.

        Raises:
            TypeError: If an argument is not a tensor or not of a usable dtype.
            ValueError: If shapes or devices do not fit or the batch is empty; with `check`, also if
                a policy token has a NaN or infinite value, or the mask a value other than 0 and 1.
        """
        validate(logprobs, old_logprobs, advantages, mask)
        policy = mask.bool()
        per_token_advantages = advantages if advantages.ndim == 2 else advantages[:, None]
        per_token_advantages = per_token_advantages.expand_as(logprobs)
        if check:
            check_mask_values(mask)
            check_finite("logprobs", logprobs, policy)
            check_finite("old_logprobs", old_logprobs, policy)
            check_finite("advantages", per_token_advantages, policy)

        dtype = torch.float64 if logprobs.dtype == torch.float64 else torch.float32
        # where() and not a product: NaN times 0 is NaN, in the value and in the gradient.
        current = torch.where(policy, logprobs.to(dtype), 0.0)
        with torch.no_grad():
            log_ratio = current - torch.where(policy, old_logprobs.to(dtype), 0.0)
            signal = per_token_advantages.to(dtype)
            log_weight = self.ratio.log_weight(log_ratio, policy)
            bounds = self.window.bounds(self.ratio.factors(policy).to(dtype))
            terms = self.surrogate.terms(log_weight, signal, bounds)
            # A masked place has its row's weight and an advantage that can be NaN, yet no loss.
            value = torch.where(policy, terms.value, 0.0)
            slope = torch.where(policy, terms.slope, 0.0)
            weights = torch.where(policy, weight_of(log_weight), 0.0)
            collected = (
                PositionStatistics.collect(log_ratio, signal, policy, terms) if statistics else None
            )
        # Straight-through: the difference is 0, its derivative 1.
        per_token = value + slope * (current - current.detach())
        return ObjectiveOutput(per_token, weights, policy, collected)
