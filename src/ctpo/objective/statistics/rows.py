"""Statistics of whole rows on a CPU, in numpy, whose operations cost a fraction of torch's.

On small batches the number of operations is what counts; on large ones, memory: rows are taken in
blocks whose intermediate values fit the cache, and position t is brought to column t, so that what
is reduced by position vectorises.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ctpo.objective.statistics.bins import BINS, bin_of
from ctpo.objective.statistics.histogram import PATTERNS, SHIFT
from ctpo.objective.surrogates import LOG_WEIGHT_LIMIT

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from ctpo.objective.layout import Padded

_BLOCK = 1 << 16
"""Tokens in a block: 256 KiB of float32, the fastest of those tried from 2^13 to 2^17."""


def by_row(
    layout: Padded, values: tuple[Tensor, Tensor, Tensor], cells: NDArray[np.int16], size: int
) -> tuple[NDArray[Any], ...]:
    """Return what `sums.by_token` does, of whole rows on a CPU; see there."""
    mask, lengths = layout.mask.numpy(), layout.lengths.numpy()
    columns = max(1, int(lengths.max()))
    given = [x.detach().expand(mask.shape).numpy() for x in values]
    cells = np.broadcast_to(cells, mask.shape)
    dtype = given[0].dtype
    sums = np.zeros((6, columns), dtype)
    ends = np.full((4, columns), np.inf, dtype)
    table = np.zeros(size, np.int64)
    patterns = np.zeros((2, PATTERNS), np.int64)
    bins, starts = _bins(columns)
    step = max(1, _BLOCK // columns)

    for low in range(0, len(mask), step):
        rows = slice(low, low + step)
        inside = np.arange(columns) < lengths[rows]
        full = bool(inside.all())
        those = ... if full else inside
        # Added to what must not be the smallest.
        infinite = dtype.type(0) if full else np.where(inside, 0, np.inf).astype(dtype)
        source = None if layout.in_columns else mask[rows]
        rho, r, weight, cell = (_in_columns(x[rows], source, inside) for x in (*given, cells))

        table += np.bincount((cell + bins)[those].ravel(), minlength=size)
        for i, each in enumerate((rho, r)):
            bits = each[those].ravel().astype(np.float32, copy=False).view(np.int32) >> SHIFT
            patterns[i] += np.bincount(bits + PATTERNS // 2, minlength=PATTERNS)
            for to, signed in ((i, infinite + each), (2 + i, infinite - each)):
                np.minimum(ends[to], signed.min(axis=0), out=ends[to])
            kept = each if full else np.where(inside, each, dtype.type(0))
            sums[i] += kept.sum(axis=0)
            sums[3 + i] += (kept * kept).sum(axis=0)
        weights = np.minimum(weight, dtype.type(LOG_WEIGHT_LIMIT)) - infinite
        sums[2] += np.exp(weights, out=weights).sum(axis=0)
        sums[5] += np.multiply(weights, weights, out=weights).sum(axis=0)

    by_bin = np.zeros((6, BINS)), np.full((4, BINS), np.inf)
    by_bin[0][:, : len(starts)] = np.add.reduceat(sums, starts, axis=1)
    by_bin[1][:, : len(starts)] = np.minimum.reduceat(ends, starts, axis=1)
    return *by_bin, table, patterns


def _in_columns(
    values: NDArray[Any], mask: NDArray[np.bool_] | None, inside: NDArray[np.bool_]
) -> NDArray[Any]:
    """Return them with position t in column t; where there is no mask they are so already."""
    if mask is None:
        return values[:, : inside.shape[1]]
    moved = np.zeros(inside.shape, values.dtype)
    moved[inside] = values[mask]
    return moved


@functools.lru_cache(maxsize=16)
def _bins(columns: int) -> tuple[NDArray[np.int16], NDArray[Any]]:
    """Return the bin of each column, and the columns where bins begin."""
    bins = bin_of(torch.arange(1, columns + 1)).numpy()
    return bins.astype(np.int16), np.flatnonzero(np.diff(bins, prepend=-1))
