"""An objective as a plain function of one sequence, which tracers and compilers can follow.

It reads no value and no shape in Python, so `torch.fx` turns it into a graph of torch functions:
for engines that take a loss as a graph, for `torch.compile`, and for reading.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ctpo.objective.layout import Layout
from ctpo.objective.objective import Objective
from ctpo.objective.parts import Tokens, TokenTerms

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


class OneSequence(Layout):
    """Tokens [T] of one sequence; rows [1].

    Args:
        mask: True on policy tokens.
    """

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask, None)

    def spread(self, rows: Tensor) -> Tensor:
        """Return it as it is: one value broadcasts along the sequence."""
        return rows

    def per_sequence(self, values: Tensor) -> Tensor:
        """Return the sum over the sequence; see `Layout.per_sequence`."""
        return self._totals(values)

    def _totals(self, values: Tensor) -> Tensor:
        return values.sum(dim=0, keepdim=True)

    def _prefix_sums(self, values: Tensor) -> Tensor:
        return values.cumsum(dim=0)

    def _preceding_minima(self, values: Tensor) -> Tensor:
        minima = values.cummin(dim=0).values
        return torch.nn.functional.pad(minima[:-1], (1, 0), value=torch.inf)

    def _minima(self, values: Tensor) -> Tensor:
        return values.amin(dim=0, keepdim=True)

    def _local_positions(self) -> Tensor:
        return self.mask.float().cumsum(dim=0)


PerToken = Callable[["Tensor", "Tensor", "Tensor", "Tensor"], "Tensor"]


def one_sequence(objective: Objective) -> PerToken:
    """Return f(logprobs, old_logprobs, advantages, mask) -> loss per token, all of shape [T].

    Value and gradient are those of `objective` on the sequence. Nothing is checked.

    Args:
        objective: Without a mismatch weight.

    Raises:
        ValueError: It has a mismatch weight, which needs the sampler's log-probabilities.
    """
    if objective.mismatch is not None:
        raise ValueError(
            f"mismatch is {objective.mismatch!r}; the function of one sequence has none, as it is "
            "not given the sampler's log-probabilities"
        )

    def per_token(
        logprobs: Float[Tensor, " T"],
        old_logprobs: Float[Tensor, " T"],
        advantages: Float[Tensor, " T"],
        mask: Float[Tensor, " T"],
    ) -> Float[Tensor, " T"]:
        layout = OneSequence(mask > 0)
        moved = torch.where(layout.mask, logprobs.float() - old_logprobs.float(), 0.0)
        log_weight, terms = _judge(objective, logprobs, moved.detach(), advantages, layout)
        value = torch.where(layout.mask, terms.value, 0.0)
        slope = torch.where(layout.mask, terms.slope, 0.0)
        # The value as it is, and the slope as its derivative: in the token's own log-probability,
        # or, for a literal gradient, in the whole weight's.
        if objective.gradient == "literal":
            change = objective.ratio.log_weight(moved, layout) - log_weight
        else:
            change = moved - moved.detach()
        return value.detach() + slope.detach() * change

    return per_token


@torch.no_grad()
def clipped(
    objective: Objective,
    logprobs: Float[Tensor, " T"],
    old_logprobs: Float[Tensor, " T"],
    advantage: float,
    mask: Bool[Tensor, " T"],
) -> Bool[Tensor, " T"]:
    """Return which tokens `PositionStatistics` counts as clipped.

    Args:
        objective: The objective.
        logprobs: log π_θ in nats; anything where masked.
        old_logprobs: log π_old in nats; anything where masked.
        advantage: Of the whole sequence.
        mask: True on policy tokens.
    """
    layout = OneSequence(mask)
    log_ratio = torch.where(mask, logprobs.float() - old_logprobs.float(), 0.0)
    advantages = torch.full_like(log_ratio, advantage)
    _, terms = _judge(objective, logprobs, log_ratio, advantages, layout)
    beyond = torch.zeros_like(mask)
    if advantage:  # without it a token has no gradient to lose
        for side in (terms.above, terms.below):
            beyond = beyond if side is None else beyond | side
    return beyond & mask


def _judge(
    objective: Objective, logprobs: Tensor, log_ratio: Tensor, advantages: Tensor, layout: Layout
) -> tuple[Tensor, TokenTerms]:
    """Return log w_t and what the surrogate says of each token."""
    log_weight = objective.ratio.log_weight(log_ratio, layout)
    tokens = Tokens(
        logprobs.detach().float(),
        log_ratio,
        log_weight,
        advantages.float(),
        objective.ratio.factors(layout),
        layout,
    )
    return log_weight, objective.surrogate.terms(tokens, objective.window)
