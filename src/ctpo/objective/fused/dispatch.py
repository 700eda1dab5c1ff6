"""The objectives of CTPO, GRPO and PNPO in one pass over the tokens, on a GPU, with Triton.

Covered are the token ratio, the cumulative one and its geometric mean, with `LogWindow`,
`RatioWindow` or without a window; padded and packed; with all statistics. It is taken where a call
says `fused=True`; the torch path is the reference for it: results agree to float32 rounding.

Nothing is read back to the host. Triton is imported on the first call; it comes with torch for
GPUs on Linux. Sums over a batch are added in an order that is not fixed, in float64.

So far this has run in Triton's interpreter and gone through its compiler only. Block size, chunks
and copies below were chosen on paper: nothing has been run or timed on a GPU.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ctpo.objective.ratios import CumulativeGeometricMeanRatio, CumulativeRatio, TokenRatio
from ctpo.objective.statistics import histogram
from ctpo.objective.statistics.positions import PositionStatistics
from ctpo.objective.surrogates import ClippedSurrogate, PlainSurrogate
from ctpo.objective.windows import LogWindow, RatioWindow

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from torch import Tensor

    from ctpo.objective.inputs import Batch
    from ctpo.objective.parts import Choices, Ratio, Window

_RATIOS = {
    TokenRatio: "token",
    CumulativeRatio: "cumulative",
    CumulativeGeometricMeanRatio: "mean",
}
_SCALES = {0.0: "one", 0.5: "sqrt", -0.5: "rsqrt"}
_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

# As many copies of the statistics as keep programs from waiting for each other; a power of two.
_COPIES = 64
# A program is a single warp, so that its scans need no barriers; 128 tokens a block fill its
# registers (about 150 a thread with statistics on sm_90, none spilled).
_MIN_BLOCK, _MAX_BLOCK = 32, 128
# Sequences are split where they are too few to give each multiprocessor this many.
_PROGRAMS_PER_PROCESSOR = 16
_MAX_CHUNKS = 1024


class Fused(NamedTuple):
    """What one pass gives; see `TokenTerms` and `Tokens`.

    Attributes:
        value: Loss per token, 0 where masked.
        slope: dL/dlog w_t, 0 where masked.
        log_ratio: log r_t in nats, 0 where masked.
        log_weight: log w_t in nats; anything where masked.
        statistics: Sums by position, if they were asked for.
    """

    value: Float[Tensor, "*tokens"]
    slope: Float[Tensor, "*tokens"]
    log_ratio: Float[Tensor, "*tokens"]
    log_weight: Float[Tensor, "*tokens"]
    statistics: PositionStatistics | None


def supports(objective: Choices, batch: Batch) -> bool:
    """Return whether `forward` can compute this here."""
    there = batch.logprobs.is_cuda and importlib.util.find_spec("triton") is not None
    return there and covers(objective, batch)


def covers(objective: Choices, batch: Batch) -> bool:
    """Return whether `forward` can compute this where there is a GPU and Triton.

    Exactly these classes are covered: what is derived from them can compute something else.
    """
    return (
        type(objective.ratio) in _RATIOS
        and type(objective.surrogate) in (ClippedSurrogate, PlainSurrogate)
        and type(objective.window) in (LogWindow, RatioWindow, type(None))
        and objective.mismatch is None
        and batch.layout.process_group is None
        and batch.logprobs.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and batch.old_logprobs.dtype in _FLOATS
        and batch.advantages.dtype in _FLOATS
        and batch.logprobs.shape[-1] < 2**31
    )


def forward(
    ratio: Ratio,
    window: Window | None,
    logprobs: Float[Tensor, "*tokens"],
    old_logprobs: Float[Tensor, "*tokens"],
    advantages: Float[Tensor, "*tokens"],
    mask: Bool[Tensor, "*tokens"],
    cu_seqlens: Int[Tensor, " S+1"] | None = None,
    *,
    statistics: bool = True,
) -> Fused:
    """Return loss, slope, log ratios and statistics of a batch that is covered.

    A second pass over the log-probs comes before where the batch has few sequences for the GPU:
    then each is split into chunks, which need to know what precedes them.

    Args:
        ratio: One of those covered.
        window: The trust region; None for `PlainSurrogate`.
        logprobs: log π_θ in nats, [B, T] or [N], any strides.
        old_logprobs: log π_old in nats.
        advantages: [B, 1], [S] or like `logprobs`.
        mask: True on policy tokens.
        cu_seqlens: For [N], where sequences begin and the last one ends, from 0. Tokens behind
            that are nobody's and get zeros.
        statistics: Whether to collect them.
    """
    kernels, records_of = _module("kernels"), _module("kernel_statistics")
    device = logprobs.device
    packed = cu_seqlens is not None
    sequences = len(logprobs) if cu_seqlens is None else len(cu_seqlens) - 1
    columns = logprobs.shape[-1]
    block = _block(columns // max(sequences, 1) if packed else columns)
    chunks = _chunks(sequences, logprobs.numel(), block, device)
    launch = {"BLOCK": block, "STAGES": 3, "num_warps": 1}

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    value, slope, log_ratio = (empty(*logprobs.shape) for _ in range(3))
    token = isinstance(ratio, TokenRatio)
    log_weight = log_ratio if token else empty(*logprobs.shape)
    split = chunks > 1
    chunk_sums = empty(sequences * chunks if split else 0, dtype=torch.float64)
    chunk_lengths = empty(sequences * chunks if split else 0, dtype=torch.int32)
    slots = records_of.ROWS.value * records_of.BINS.value
    records = torch.zeros(_COPIES * slots if statistics else 0, dtype=torch.int64, device=device)
    tokens = [
        argument
        for tensor in (logprobs.detach(), old_logprobs, mask.view(torch.uint8))
        for argument in _with_strides(tensor, packed)
    ]
    per_token = advantages.shape == logprobs.shape
    where = [log_ratio if cu_seqlens is None else cu_seqlens, sequences, columns, chunks]
    where += [chunk_sums, chunk_lengths]
    grid = (sequences * chunks,)
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        if split:
            kernels.chunk_totals[grid](*tokens, *where, PACKED=packed, **launch)
        kernels.forward[grid](
            *tokens,
            *_with_strides(advantages.detach(), packed, per_token),
            *where,
            *_bounds(window),
            value,
            slope,
            log_ratio,
            log_weight,
            records,
            records.view(torch.float64),
            RATIO=_RATIOS[type(ratio)],
            SCALE=_scale(window),
            CLIPPED=window is not None,
            PACKED=packed,
            PER_TOKEN=per_token,
            SPLIT=1 << (chunks - 1).bit_length() if split else 0,
            STATISTICS=statistics,
            COPIES=_COPIES,
            **launch,
        )
        collected = _merged(records, records_of) if statistics else None
    return Fused(value, slope, log_ratio, log_weight, collected)


@functools.cache
def _module(name: str) -> Any:  # noqa: ANN401 - the module
    """Return a module of this package that imports Triton."""
    return importlib.import_module(f"ctpo.objective.fused.{name}")


def _block(length: int) -> int:
    """Return the tokens per block for sequences of about this length; a power of two."""
    return min(max(1 << (length - 1).bit_length(), _MIN_BLOCK), _MAX_BLOCK)


def _chunks(sequences: int, tokens: int, block: int, device: torch.device) -> int:
    """Return into how many chunks to split each sequence, so that all of the GPU has work."""
    wanted = _PROGRAMS_PER_PROCESSOR * _processors(device)
    useful = -(-tokens // (sequences * block))
    return max(min(wanted // sequences, useful, _MAX_CHUNKS), 1)


@functools.cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def _with_strides(tensor: Tensor, packed: bool, per_token: bool = True) -> tuple[Tensor, int, int]:
    """Return a tensor, its stride per sequence and its stride per token."""
    if not per_token:
        return tensor, tensor.stride(0), 0
    return tensor, 0 if packed else tensor.stride(0), tensor.stride(-1)


def _bounds(window: Window | None) -> tuple[float, float, float, float]:
    """Return low, high and dual for one factor, and the power."""
    if isinstance(window, LogWindow):
        dual = math.inf if window.dual_clip is None else window.dual_clip
        return -window.eps_low, window.eps_high, dual, window.power
    if window is None:
        return -math.inf, math.inf, math.inf, 0.0
    low, high, dual_bound = (float(bound) for bound in window.bounds(torch.ones(())))
    return low, high, dual_bound, 0.0


def _scale(window: Window | None) -> str:
    power = window.power if isinstance(window, LogWindow) else 0.0
    return _SCALES.get(power, "power")


def _merged(records: Tensor, layout: Any) -> PositionStatistics:  # noqa: ANN401 - a module
    """Return the statistics in the copies of a record."""
    bins, rows = layout.BINS.value, layout.ROWS.value
    first_count = len(layout.SUMS) + len(layout.EXTREMES)
    floats = records.new_empty((first_count, bins), dtype=torch.float64)
    integers = records.new_empty((rows - first_count, bins))
    layout.merge[(rows,)](records, floats, integers, COPIES=_COPIES, num_warps=16)
    named = dict(zip((*layout.SUMS, *layout.EXTREMES), floats, strict=True))
    named |= dict(zip(layout.COUNTS, integers, strict=False))
    sketches = (
        integers[len(layout.COUNTS) :].flatten()[: 2 * histogram.BINS].view(2, histogram.BINS)
    )
    named |= {"log_rho_sketch": sketches[0], "log_r_sketch": sketches[1]}
    for name in layout.BY_SEQUENCE:
        named[name] = named[name][0]
    return PositionStatistics(**named)
