"""Sums, extremes, counts and sketches of a batch, by position bin where they have one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ctpo.objective.layout import Padded
from ctpo.objective.statistics.bins import BINS, bin_of
from ctpo.objective.statistics.histogram import PATTERNS, SHIFT, count, fold
from ctpo.objective.statistics.rows import by_row
from ctpo.objective.surrogates import weight_of

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from ctpo.objective.layout import Layout
    from ctpo.objective.parts import Tokens, TokenTerms

_SUMS = (
    "log_rho_sum",
    "log_r_sum",
    "weight_sum",
    "log_rho_sumsq",
    "log_r_sumsq",
    "weight_sumsq",
)
_MINIMA = ("log_rho_min", "log_r_min")
_MAXIMA = ("log_rho_max", "log_r_max")
_SKETCHES = ("log_rho_sketch", "log_r_sketch")

_SEQUENCES = (
    "sequence_log_ratio_sum",
    "sequence_log_ratio_sumsq",
    "sequence_log_ratio_min",
    "sequence_log_ratio_max",
)
_COUNTS = (
    "tokens",
    "positive_tokens",
    "negative_tokens",
    "clipped_high",
    "clipped_high_negative",
    "clipped_low",
    "clipped_low_positive",
    "clipped_dual",
)
_CELLS = 12 * BINS
"""Tokens are counted by whether they are below their window, above it, by the sign of their
advantage (0, +, -) and by bin."""


@np.errstate(all="ignore")  # log-probs may be anything, and so may what becomes of them
def sums_of(
    tokens: Tokens, log_rho: Float[Tensor, "*tokens"], terms: TokenTerms
) -> dict[str, Tensor]:
    """Return all statistics of a batch by their names. Nothing is read back from a GPU.

    Args:
        tokens: The batch.
        log_rho: log ρ_t, anything where masked.
        terms: What the surrogate said about each token, anything where masked.
    """
    layout, log_ratio = tokens.layout, tokens.log_ratio
    k3_sum = torch.expm1(log_ratio).sub_(log_ratio).sum().double()
    totals, lengths = layout.totals(log_ratio).double(), layout.lengths
    values = log_rho, log_ratio, tokens.log_weight
    marks = tokens.advantages, terms.above, terms.below
    if isinstance(layout, Padded) and not layout.process_group and log_ratio.device.type == "cpu":
        cells = _cells(np, *(None if mark is None else mark.detach().numpy() for mark in marks))
        found: tuple[Any, ...] = by_row(layout, values, cells, _CELLS)
        counts = _counts(np, found[2], terms.dual)
        over = _over_sequences(np, totals.numpy(), lengths.numpy() > 0)
    else:
        found = by_token(layout, values, _cells(torch, *marks), _CELLS)
        counts = _counts(torch, found[2], terms.dual)
        # Of sequences that are cut over ranks, the first rank counts the totals.
        over = _over_sequences(torch, totals, (lengths > 0) & layout.first_rank)
    sums, ends, _, patterns = found
    results = {"k3_sum": k3_sum, "sequences": torch.as_tensor(over[0])}
    for names, rows in (
        (_SUMS, sums),
        (_MINIMA, ends[:2]),
        (_MAXIMA, -ends[2:]),
        (_COUNTS, counts),
        (_SEQUENCES, over[1]),
        (_SKETCHES, fold(torch.as_tensor(patterns))),
    ):
        results |= zip(names, torch.as_tensor(rows).unbind(), strict=True)
    return results


def by_token(
    layout: Layout, values: tuple[Tensor, Tensor, Tensor], cells: Tensor, size: int
) -> tuple[Tensor, ...]:
    """Add every token to the bin of its position. Never waits for the host.

    Args:
        layout: Where sequences begin and end, and which tokens are the policy's.
        values: log ρ_t, log r_t and log w_t, anything where masked; broadcast to the tokens.
        cells: Where to count each token, less its bin; broadcasts to the tokens.
        size: Of the table of counts.

    Returns:
        Σ of log ρ, log r, w and of their squares, [6, bins]; smallest log ρ, log r, -log ρ and
        -log r, [4, bins]; the table; values of log ρ and log r by their
        pattern of bits, [2, patterns].
    """
    outside = layout.outside
    bins = bin_of(layout.positions).expand_as(outside).flatten()
    zeros = torch.zeros(BINS, dtype=torch.float64, device=bins.device)
    log_rho, log_ratio, log_weight = (x.expand_as(outside) for x in values)
    sums, squares, ends, patterns = [], [], [], []
    for each in (log_rho, log_ratio, weight_of(log_weight)):
        wide = each.masked_fill(outside, 0.0).flatten().double()
        sums.append(zeros.index_add(0, bins, wide))
        squares.append(zeros.index_add(0, bins, wide.square_()))
    for each in (log_rho, log_ratio, -log_rho, -log_ratio):
        candidates = each.masked_fill(outside, math.inf).flatten().double()
        ends.append((zeros + math.inf).scatter_reduce_(0, bins, candidates, "amin"))
    where = (bins.view(outside.shape) + cells).masked_fill_(outside, size).flatten()
    table = count(where, size + 1)[:size]
    for each in (log_rho, log_ratio):
        bits = each.float().contiguous().view(torch.int32) >> SHIFT
        bits.add_(PATTERNS // 2).masked_fill_(outside, PATTERNS)
        patterns.append(count(bits.flatten(), PATTERNS + 1)[:PATTERNS])
    return torch.stack([*sums, *squares]), torch.stack(ends), table, torch.stack(patterns)


# What follows is given either arrays and numpy, or tensors and torch, as `xp`.
# ruff: noqa: ANN401


def _cells(xp: Any, advantages: Any, above: Any, below: Any) -> Any:
    """Return where to count each token, less its bin."""
    cells = xp.asarray(advantages > 0, dtype=xp.int16) * BINS
    for flags, factor in ((advantages < 0, 2), (above, 3), (below, 6)):
        if flags is not None:
            cells = cells + xp.asarray(flags, dtype=xp.int16) * (factor * BINS)
    return cells


def _counts(xp: Any, table: Any, dual: bool) -> Any:
    """Return how many tokens there are by position bin, in the order of `_COUNTS`."""
    table = table.reshape(2, 2, 3, BINS)
    signs, above, below = table.sum((0, 1)), table[:, 1].sum(0), table[1].sum(0)
    every, either = signs.sum(0), above.sum(0)
    none = 0 * either
    high = (above[1], none, above[2]) if dual else (either, above[2], none)
    return xp.stack([every, signs[1], signs[2], *high[:2], below.sum(0), below[1], high[2]])


def _over_sequences(xp: Any, totals: Any, counted: Any) -> tuple[Any, Any]:
    """Return how many sequences count, and of their log ρ_H what `_SEQUENCES` names."""
    kept = xp.where(counted, totals, 0.0)
    smallest = xp.where(counted, totals, math.inf).min()
    largest = xp.where(counted, totals, -math.inf).max()
    return counted.sum(), xp.stack([kept.sum(), (kept * kept).sum(), smallest, largest])
