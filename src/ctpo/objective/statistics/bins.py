"""Bins over the position t of a policy token: exact to start with, then geometric.

Position t = 1..64 has a bin each. After that every octave (2^k, 2^(k+1)] has eight bins of equal
width, so that a bin is at most an eighth as wide as its position: 65..72, 73..80, ..., 121..128,
129..144, ..., up to 2^20. The last bin also takes every position beyond.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Int, Real
    from torch import Tensor

EXACT = 64
BINS_PER_OCTAVE = 8
OCTAVES = 14
BINS = EXACT + OCTAVES * BINS_PER_OCTAVE
LAST = EXACT << OCTAVES

# A float32 shifted right by this many bits counts eighths of octaves: exponent, three bits of
# mantissa.
_EIGHTHS_SHIFT = 20
_FIRST_OCTAVE = (127 + 6) << 3  # of 2^6 = EXACT


def upper_edges(device: torch.device | str | None = None) -> Int[Tensor, " bins"]:
    """Return the last position of each bin.

    Built on the device: copying a list of edges there would wait for it.

    Args:
        device: Where to put them.

    Returns:
        `BINS` edges, ascending.
    """
    exact = torch.arange(1, EXACT + 1, device=device)
    octave = EXACT + torch.arange(1, BINS_PER_OCTAVE + 1, device=device) * (
        EXACT // BINS_PER_OCTAVE
    )
    doublings = torch.arange(OCTAVES, device=device)[:, None]
    return torch.cat([exact, (octave << doublings).flatten()])


def bin_of(positions: Real[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
    """Return the 0-based bin of each position.

    Args:
        positions: 1-based whole numbers, up to 2^24; what lies before the first or beyond the last
            bin goes into that bin.

    Returns:
        Bins from 0 to `BINS - 1`, int64.
    """
    zero_based = (positions.to(torch.float32) - 1).clamp(min=0)
    eighths = zero_based.view(torch.int32) >> _EIGHTHS_SHIFT
    late = (eighths - (_FIRST_OCTAVE - EXACT)).clamp(max=BINS - 1)
    return torch.where(zero_based < EXACT, zero_based.to(torch.int32), late).long()
