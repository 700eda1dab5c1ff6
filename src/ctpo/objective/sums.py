"""Sums, extremes and counts by position bin, each in as few passes as the layout allows.

Where position t stands in column t of every row, columns are reduced first, which vectorises; in
general every token is added to the bin of its position.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ctpo.objective.position_bins import BINS, bin_of, upper_edges
from ctpo.objective.sketch import count

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Int64
    from torch import Tensor

    from ctpo.objective.layout import Layout
    from ctpo.objective.surrogates import TokenTerms

# A token's category: by the sign of its advantage (0, +, -) and by its side of the window.
_ABOVE, _BELOW, _CATEGORIES = 3, 6, 9


class ByPosition:
    """The bins of a batch's tokens.

    Args:
        layout: Where sequences begin and end, and which tokens are the policy's.
    """

    def __init__(self, layout: Layout) -> None:
        self._mask = layout.mask
        self._in_columns = layout.in_columns
        self._bins = bin_of(layout.positions)

    def sums(self, **values: Float[Tensor, "*tokens"]) -> dict[str, Float64[Tensor, " bins"]]:
        """Return the sum of each by position bin.

        Args:
            **values: 0 where masked.
        """
        if self._in_columns:
            # Bins are runs of columns: differences of one running sum.
            columns = torch.stack([x.sum(dim=0, dtype=torch.float64) for x in values.values()])
            running = torch.nn.functional.pad(columns.cumsum(dim=1), (1, 0))
            last = upper_edges().clamp(max=columns.shape[1])
            last[-1] = columns.shape[1]
            binned = running[:, torch.nn.functional.pad(last, (1, 0))].diff(dim=1)
            return dict(zip(values, binned, strict=True))
        zeros = torch.zeros(BINS, dtype=torch.float64, device=self._mask.device)
        bins = self._bins.flatten()
        return {
            name: zeros.index_add(0, bins, x.flatten().double()) for name, x in values.items()
        }

    def extremes(self, **values: Float[Tensor, "*tokens"]) -> dict[str, Float64[Tensor, " bins"]]:
        """Return `NAME_min` and `NAME_max` of each by position bin; ±inf in an empty bin.

        Args:
            **values: Anything where masked.
        """
        results = {}
        for name, x in values.items():
            for suffix, sign in (("min", 1), ("max", -1)):
                candidates = torch.where(self._mask, x if sign > 0 else -x, math.inf)
                if self._in_columns:
                    candidates = candidates.amin(dim=0)
                smallest = torch.full(
                    (BINS,), math.inf, dtype=candidates.dtype, device=candidates.device
                ).scatter_reduce(0, self._bins.flatten(), candidates.flatten(), "amin")
                results[f"{name}_{suffix}"] = sign * smallest.double()
        return results

    def counts(
        self, advantages: Float[Tensor, "*tokens"], terms: TokenTerms
    ) -> dict[str, Int64[Tensor, " bins"]]:
        """Return how many tokens there are of each kind, by position bin.

        Args:
            advantages: Anything where masked; broadcasts to the tokens.
            terms: What the surrogate said about each token.
        """
        kind = (advantages > 0).int() + 2 * (advantages < 0).int()
        if terms.above is not None:
            kind = kind + _ABOVE * terms.above.int()
        if terms.below is not None:
            kind = kind + _BELOW * terms.below.int()
        nowhere = BINS * _CATEGORIES
        # Above and below at once happens only to a NaN or to a window turned inside out.
        kind = kind.clamp(max=_CATEGORIES - 1) + _CATEGORIES * self._bins.int()
        kinds = torch.where(self._mask, kind, nowhere)
        table = count(kinds.flatten(), nowhere + 1)[:nowhere].view(BINS, 3, 3)  # side, sign
        above, below = table[:, 1], table[:, 2]
        zero = torch.zeros_like(above[:, 0])
        return {
            "tokens": table.sum(dim=(1, 2)),
            "positive_tokens": table[:, :, 1].sum(dim=1),
            "negative_tokens": table[:, :, 2].sum(dim=1),
            "clipped_high": above[:, 1] if terms.dual else above.sum(dim=1),
            "clipped_high_negative": zero if terms.dual else above[:, 2],
            "clipped_low": below.sum(dim=1),
            "clipped_low_positive": below[:, 1],
            "clipped_dual": above[:, 2] if terms.dual else zero,
        }
