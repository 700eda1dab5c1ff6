"""A histogram of logarithmic bins from which quantiles can be read, whatever the scale.

Magnitudes from 2^-20 (about 1e-6) to 2^8 have sixteen bins per octave on either side of 0, so that
a quantile is right to about 3 % of its value; smaller ones count as 0, larger ones go to the last
bin. Sketches merge by addition.
"""

from __future__ import annotations

import bisect
import functools
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Int64
    from torch import Tensor

BINS_PER_OCTAVE = 16
SMALLEST_EXPONENT, LARGEST_EXPONENT = -20, 8
SIDE = (LARGEST_EXPONENT - SMALLEST_EXPONENT) * BINS_PER_OCTAVE
BINS = 2 * SIDE + 1

SHIFT = 19
"""A float32 shifted right by this many bits has sign, exponent and four bits of mantissa left:
sixteenths of octaves. Those of negative numbers are negative."""

PATTERNS = 1 << (32 - SHIFT)


def fold(counted: Int64[Tensor, "rows patterns"]) -> Int64[Tensor, "rows bins"]:
    """Return sketches.

    Args:
        counted: How many values have each pattern, from that of the most negative number on; NaN
            counts as the largest of its sign.
    """
    table = counted.new_zeros(len(counted), BINS)
    return table.index_add_(1, _bin_of_patterns(counted.device), counted)


@functools.cache
def _bin_of_patterns(device: torch.device) -> Int64[Tensor, " patterns"]:
    """Return the bin of each pattern."""
    shifted = torch.arange(PATTERNS, device=device) - PATTERNS // 2
    magnitude = shifted & (PATTERNS // 2 - 1)
    first = (127 + SMALLEST_EXPONENT) << 4
    rank = (magnitude - (first - 1)).clamp(0, SIDE)
    return torch.where(shifted < 0, SIDE - rank, SIDE + rank)


def count(bins: Tensor, size: int) -> Int64[Tensor, " size"]:
    """Return how often each bin occurs.

    Args:
        bins: Integers [N] from 0 to `size - 1`.
        size: Number of bins.
    """
    if bins.device.type == "cpu":
        return torch.bincount(bins, minlength=size)
    # Elsewhere bincount waits for the host.
    zeros = torch.zeros(size, dtype=torch.int64, device=bins.device)
    return zeros.index_add_(0, bins.long(), torch.ones_like(bins, dtype=torch.int64))


def quantiles(counts: Sequence[int], shares: Sequence[float]) -> list[float]:
    """Return quantiles of what was sketched; NaN if that is nothing.

    Args:
        counts: A sketch, on the host.
        shares: Which quantiles, each from 0 to 1.

    Raises:
        ValueError: A share is outside 0 to 1.
    """
    for share in shares:
        if not 0 <= share <= 1:
            raise ValueError(f"a quantile is a share between 0 and 1, not {share!r}")
    running = list(itertools.accumulate(counts))
    if not running or not running[-1]:
        return [float("nan")] * len(shares)
    # The k-th smallest of n stands for the share k/n; within a bin, values are spread evenly.
    results = []
    for share in shares:
        target = max(share * running[-1], 0.5)
        index = bisect.bisect_left(running, target)
        before = running[index] - counts[index]
        results.append(_value(index, (target - before) / counts[index]))
    return results


def _value(index: int, share: float) -> float:
    """Return the value at a share of the way through a bin."""
    rank = index - SIDE
    if rank == 0:
        return 0.0
    low, high = _edge(abs(rank) - 1), _edge(abs(rank))
    if rank < 0:
        return -(high - share * (high - low))
    return low + share * (high - low)


def _edge(rank: int) -> float:
    octave, part = divmod(rank, BINS_PER_OCTAVE)
    return float(2.0 ** (SMALLEST_EXPONENT + octave) * (1 + part / BINS_PER_OCTAVE))
