"""Sums, extremes and counts by position bin, each in as few passes as the layout allows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ctpo.objective.layout import Padded
from ctpo.objective.position_bins import BINS, bin_of, upper_edges
from ctpo.objective.sketch import count

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Int64
    from torch import Tensor

    from ctpo.objective.layout import Layout
    from ctpo.objective.surrogates import TokenTerms

_SUMS = (
    "log_rho_sum",
    "log_rho_sumsq",
    "log_r_sum",
    "log_r_sumsq",
    "weight_sum",
    "weight_sumsq",
)
_MINIMA = ("log_rho_min", "log_r_min")
_MAXIMA = ("log_rho_max", "log_r_max")

# A token's kind: the sign of its advantage (0, +, -) and, times three, its side of the window
# (inside, above, below).
_ABOVE, _BELOW, _KINDS = 3, 6, 9


def sums_and_extremes(
    layout: Layout,
    log_rho: Float[Tensor, "*tokens"],
    log_ratio: Float[Tensor, "*tokens"],
    weights: Float[Tensor, "*tokens"],
) -> dict[str, Float64[Tensor, " bins"]]:
    """Return sums, sums of squares and extremes by position bin, by the names of the statistics.

    Args:
        layout: Where sequences begin and end, and which tokens are the policy's.
        log_rho: log ρ_t, 0 where masked.
        log_ratio: log r_t, 0 where masked.
        weights: w_t, 0 where masked.
    """
    whole_rows = isinstance(layout, Padded) and layout.process_group is None
    if not whole_rows or layout.mask.device.type != "cpu":
        return _token_by_token(layout, log_rho, log_ratio, weights)
    if layout.in_columns:
        return _column_by_column(layout.outside, log_rho, log_ratio, weights)
    # On a CPU it pays to move tokens to the column of their position first.
    rows, columns = layout.mask.shape
    place = torch.arange(rows)[:, None] * columns + (layout.positions.long() - 1)
    nowhere = rows * columns
    place = place.masked_fill_(layout.outside, nowhere).flatten()

    def aligned(values: Tensor) -> Tensor:
        moved = torch.zeros(nowhere + 1, dtype=values.dtype)
        return moved.scatter_(0, place, values.flatten())[:nowhere].view(rows, columns)

    outside = torch.arange(columns) >= layout.lengths
    return _column_by_column(outside, aligned(log_rho), aligned(log_ratio), aligned(weights))


def counts(
    layout: Layout, advantages: Float[Tensor, "*tokens"], terms: TokenTerms
) -> dict[str, Int64[Tensor, " bins"]]:
    """Return how many tokens there are of each kind by position bin, by the names they have there.

    Args:
        layout: Where sequences begin and end, and which tokens are the policy's.
        advantages: Anything where masked; broadcasts to the tokens.
        terms: What the surrogate said about each token.
    """
    # In bytes, then 16 bits: the passes are as short as they get.
    kinds = (advantages > 0).to(torch.int8) + 2 * (advantages < 0).to(torch.int8)
    if terms.above is not None:
        kinds = kinds + terms.above.to(torch.int8) * _ABOVE
    if terms.below is not None:
        kinds = kinds + terms.below.to(torch.int8) * _BELOW
    nowhere = BINS * _KINDS
    first_of_bin = (bin_of(layout.positions) * _KINDS).to(torch.int16)
    # Above and below at once happens only to a NaN or in a window turned inside out.
    cells = (kinds.clamp(max=_KINDS - 1) + first_of_bin).expand_as(layout.mask)
    cells = cells.masked_fill(layout.outside, nowhere).flatten()
    table = count(cells, nowhere + 1)[:nowhere].view(BINS, 3, 3)  # by side, by sign
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


def _column_by_column(
    outside: Tensor, log_rho: Tensor, log_ratio: Tensor, weights: Tensor
) -> dict[str, Tensor]:
    """Position t stands in column t of every row: columns first, which vectorises."""
    columns = outside.shape[1]
    squares = torch.empty_like(log_rho)
    by_column = []
    for values in (log_rho, log_ratio, weights):
        by_column += [values.sum(dim=0), torch.mul(values, values, out=squares).sum(dim=0)]
    # Bins are runs of columns: differences of one running sum.
    running = torch.stack(by_column).double().cumsum(dim=1)
    last = upper_edges().clamp_(max=columns)
    last[-1] = columns
    binned = torch.nn.functional.pad(running, (1, 0))[:, torch.nn.functional.pad(last, (1, 0))]
    results = dict(zip(_SUMS, binned.diff(dim=1), strict=True))

    bins = bin_of(torch.arange(1, columns + 1))
    lows = [x.masked_fill(outside, math.inf).amin(dim=0) for x in (log_rho, log_ratio)]
    highs = [x.masked_fill(outside, -math.inf).amax(dim=0) for x in (log_rho, log_ratio)]
    edges = torch.stack([*lows, *(-x for x in highs)])
    smallest = edges.new_full((4, BINS), math.inf)
    smallest.scatter_reduce_(1, bins.expand(4, columns), edges, "amin")
    results |= zip(_MINIMA, smallest[:2].double(), strict=True)
    results |= zip(_MAXIMA, -smallest[2:].double(), strict=True)
    return results


def _token_by_token(
    layout: Layout, log_rho: Tensor, log_ratio: Tensor, weights: Tensor
) -> dict[str, Tensor]:
    """Add every token to the bin of its position. Never waits for the host."""
    bins = bin_of(layout.positions).expand_as(layout.mask).flatten()
    zeros = torch.zeros(BINS, dtype=torch.float64, device=bins.device)
    results = {}
    for names, values in zip(
        (_SUMS[:2], _SUMS[2:4], _SUMS[4:]), (log_rho, log_ratio, weights), strict=True
    ):
        wide = values.flatten().double()
        for name, terms in zip(names, (wide, wide.square()), strict=True):
            results[name] = zeros.index_add(0, bins, terms)
    for name, values, sign in (
        (_MINIMA[0], log_rho, 1),
        (_MINIMA[1], log_ratio, 1),
        (_MAXIMA[0], log_rho, -1),
        (_MAXIMA[1], log_ratio, -1),
    ):
        candidates = (sign * values).masked_fill(layout.outside, math.inf).flatten().double()
        empty = torch.full_like(zeros, math.inf)
        results[name] = sign * empty.scatter_reduce(0, bins, candidates, "amin")
    return results
