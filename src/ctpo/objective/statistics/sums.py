"""Sums, extremes and counts by position bin, each in as few passes as the layout allows."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ctpo.objective.layout import Padded
from ctpo.objective.statistics.bins import BINS, BINS_PER_OCTAVE, EXACT, LAST, bin_of
from ctpo.objective.statistics.histogram import count
from ctpo.objective.surrogates import LOG_WEIGHT_LIMIT, weight_of

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Int16, Int64
    from torch import Tensor

    from ctpo.objective.layout import Layout
    from ctpo.objective.parts import TokenTerms

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
    log_weight: Float[Tensor, "*tokens"],
) -> dict[str, Float64[Tensor, " bins"]]:
    """Return sums, sums of squares and extremes by position bin, by the names of the statistics.

    Args:
        layout: Where sequences begin and end, and which tokens are the policy's.
        log_rho: log ρ_t, 0 where masked.
        log_ratio: log r_t, 0 where masked.
        log_weight: log w_t, anything where masked.
    """
    whole_rows = isinstance(layout, Padded) and layout.process_group is None
    if not whole_rows or layout.mask.device.type != "cpu":
        return _token_by_token(layout, log_rho, log_ratio, log_weight)
    if layout.in_columns:
        return _column_by_column(layout.outside, log_rho, log_ratio, log_weight)
    # On a CPU it pays to move tokens to the column of their position first.
    rows, columns = layout.mask.shape
    place = torch.arange(rows)[:, None] * columns + (layout.positions.long() - 1)
    nowhere = rows * columns
    place = place.masked_fill_(layout.outside, nowhere).flatten()

    def aligned(values: Tensor) -> Tensor:
        moved = torch.zeros(nowhere + 1, dtype=values.dtype)
        return moved.scatter_(0, place, values.flatten())[:nowhere].view(rows, columns)

    outside = torch.arange(columns) >= layout.lengths
    r = aligned(log_ratio)
    rho = r if log_rho is log_ratio else aligned(log_rho)
    weight = r if log_weight is log_ratio else rho if log_weight is log_rho else aligned(log_weight)
    return _column_by_column(outside, rho, r, weight)


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
    if layout.in_columns:
        first_of_bin = _first_cells(layout.mask.shape[1])
    else:
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


@functools.lru_cache(maxsize=16)
def _first_cells(columns: int) -> Int16[Tensor, " columns"]:
    """Return the first cell of each column's bin in the table of counts."""
    return (bin_of(torch.arange(1, columns + 1)) * _KINDS).to(torch.int16)


def _column_by_column(
    outside: Tensor, log_rho: Tensor, log_ratio: Tensor, log_weight: Tensor
) -> dict[str, Tensor]:
    """Position t stands in column t of every row: columns first, which vectorises."""
    # One piece of memory for all that is as large as the batch.
    scratch = torch.empty_like(log_rho)
    sums, lows, highs = [], [], []
    for values in (log_rho, log_ratio):
        sums += [values.sum(dim=0), torch.mul(values, values, out=scratch).sum(dim=0)]
        lows.append(scratch.copy_(values).masked_fill_(outside, math.inf).amin(dim=0))
        highs.append(scratch.copy_(values).masked_fill_(outside, -math.inf).amax(dim=0))
    weights = torch.clamp(log_weight, max=LOG_WEIGHT_LIMIT, out=scratch).exp_()
    weights.masked_fill_(outside, 0.0)
    sums += [weights.sum(dim=0), weights.mul_(weights).sum(dim=0)]
    binned = _fold(torch.stack(sums), torch.sum, 0.0)
    smallest = _fold(torch.stack([*lows, *(-x for x in highs)]), torch.amin, math.inf)
    results = dict(zip(_SUMS, binned, strict=True))
    results |= zip(_MINIMA, smallest[:2], strict=True)
    results |= zip(_MAXIMA, -smallest[2:], strict=True)
    return results


def _fold(
    columns: Float[Tensor, "rows columns"],
    reduce: Callable[..., Tensor],
    neutral: float,
) -> Float64[Tensor, "rows bins"]:
    """Reduce columns, one per position, to position bins."""
    rows, count = columns.shape
    if count > LAST:
        beyond = columns[:, LAST - 1 :]
        columns = torch.cat([columns[:, : LAST - 1], reduce(beyond, dim=1, keepdim=True)], dim=1)
        count = LAST
    octaves = max(0, math.ceil(math.log2(count / EXACT)))
    padded = torch.nn.functional.pad(columns, (0, (EXACT << octaves) - count), value=neutral)
    parts = [padded[:, :EXACT]]
    for octave in range(octaves):
        first = EXACT << octave
        parts.append(reduce(padded[:, first : 2 * first].view(rows, BINS_PER_OCTAVE, -1), dim=2))
    binned = torch.cat(parts, dim=1).double()
    return torch.nn.functional.pad(binned, (0, BINS - binned.shape[1]), value=neutral)


def _token_by_token(
    layout: Layout, log_rho: Tensor, log_ratio: Tensor, log_weight: Tensor
) -> dict[str, Tensor]:
    """Add every token to the bin of its position. Never waits for the host."""
    bins = bin_of(layout.positions).expand_as(layout.mask).flatten()
    zeros = torch.zeros(BINS, dtype=torch.float64, device=bins.device)
    weights = weight_of(log_weight).expand_as(log_ratio).masked_fill(layout.outside, 0.0)
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
