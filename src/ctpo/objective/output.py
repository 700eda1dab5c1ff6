"""What an objective says about a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import torch

from ctpo.objective.reductions import reduce
from ctpo.objective.statistics.positions import PositionStatistics
from ctpo.objective.surrogates import weight_of

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from ctpo.objective.layout import Layout
    from ctpo.objective.named.names import ReductionName

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
        mask: TokensT = in_pieces(self._layout.mask, self._pieces)
        return mask

    @property
    def weights(self) -> TokensT:
        """Importance weight w_t before clipping, 0 where masked, in the caller's layout."""
        every = weight_of(self._log_weight.expand_as(self._loss))
        weights: TokensT = in_pieces(torch.where(self._layout.mask, every, 0.0), self._pieces)
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

    def mean(self, reduction: ReductionName) -> Float[Tensor, ""]:
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


def in_pieces(tensor: Tensor, pieces: list[int] | None) -> Any:  # noqa: ANN401 - as handed over
    """Return a batch in the caller's layout.

    Args:
        tensor: [B, T] or [N].
        pieces: Lengths of the list that the caller handed over; None if it was no list.
    """
    return tensor if pieces is None else list(torch.split(tensor, pieces))
