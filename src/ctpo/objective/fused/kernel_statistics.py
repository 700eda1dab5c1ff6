"""The part of the Triton kernels that collects `PositionStatistics`.

Programs add to *records*: rows of one 64-bit slot per position bin. There are several copies of the
record, so that programs rarely wait for each other at the same slot; `merge` adds the copies up.
All slots start as 0, whatever they hold.

Positions never fall along a sequence, so that tokens of one bin stand next to each other: a
segmented scan sums up each bin's run within a block, and only a run's last token adds to memory.

Imports Triton; `fused` imports this file where it needs it.
"""

import triton
import triton.language as tl

from ctpo.objective.statistics import bins, histogram
from ctpo.objective.surrogates import LOG_WEIGHT_LIMIT

SUMS = (
    "log_rho_sum",
    "log_rho_sumsq",
    "log_r_sum",
    "log_r_sumsq",
    "weight_sum",
    "weight_sumsq",
    "sequence_log_ratio_sum",
    "sequence_log_ratio_sumsq",
    "k3_sum",
)
"""The first rows of a record, float64, a slot per position bin."""

EXTREMES = (
    "log_rho_max",
    "log_rho_min",
    "log_r_max",
    "log_r_min",
    "sequence_log_ratio_max",
    "sequence_log_ratio_min",
)
"""The rows after that, int64: the largest `key` of a value or, for a minimum, of its negative."""

COUNTS = (
    "tokens",
    "positive_tokens",
    "negative_tokens",
    "clipped_high",
    "clipped_dual",
    "clipped_low",
    "sequences",
    "clipped_high_negative",  # this and the next stay 0: the clip goes by the advantage's sign
    "clipped_low_positive",
)
"""The rows after that, int64; behind them the sketches of log ρ and log r."""

BY_SEQUENCE = (
    "sequences",
    "sequence_log_ratio_sum",
    "sequence_log_ratio_sumsq",
    "sequence_log_ratio_min",
    "sequence_log_ratio_max",
    "k3_sum",
)
"""Rows of which only the first slot is used."""

BINS = tl.constexpr(bins.BINS)
ROWS = tl.constexpr(len(SUMS) + len(EXTREMES) + len(COUNTS) + -(-2 * histogram.BINS // bins.BINS))
"""Rows of a record, with those for the sketches."""

_LANES = tl.constexpr(1 << (bins.BINS - 1).bit_length())
_FIRST_EXTREME = tl.constexpr(len(SUMS))
_FIRST_COUNT = tl.constexpr(len(SUMS) + len(EXTREMES))
_SKETCH_SLOT = tl.constexpr((len(SUMS) + len(EXTREMES) + len(COUNTS)) * bins.BINS)
_WEIGHT_LIMIT = tl.constexpr(LOG_WEIGHT_LIMIT)

# Bins are the exponent of a float32 and the first bits of its mantissa, as in `position_bins` and
# `sketch`.
_EXACT = tl.constexpr(bins.EXACT)
_BIN_SHIFT = tl.constexpr(24 - bins.BINS_PER_OCTAVE.bit_length())
_BIN_OFFSET = tl.constexpr((126 + bins.EXACT.bit_length()) * bins.BINS_PER_OCTAVE - bins.EXACT)
_SKETCH_BINS = tl.constexpr(histogram.BINS)
_SKETCH_SIDE = tl.constexpr(histogram.SIDE)
_SKETCH_SHIFT = tl.constexpr(24 - histogram.BINS_PER_OCTAVE.bit_length())
_SKETCH_OFFSET = tl.constexpr((127 + histogram.SMALLEST_EXPONENT) * histogram.BINS_PER_OCTAVE - 1)

# Keys order floats as integers. No float has the smallest int32, so it stands for none.
_NO_KEY = tl.constexpr(-(2**31))
_NAN_KEY = tl.constexpr(0x7FC00000)
_ALL_BUT_SIGN = tl.constexpr(0x7FFFFFFF)


@triton.jit  # type: ignore[untyped-decorator]
def weight_of(log_weight: tl.tensor) -> tl.tensor:
    """Return exp(log w), capped as in `surrogates.weight_of`; NaN stays NaN."""
    return tl.exp(tl.where(log_weight > _WEIGHT_LIMIT, _WEIGHT_LIMIT, log_weight))


@triton.jit  # type: ignore[untyped-decorator]
def k3_of(x: tl.tensor) -> tl.tensor:
    """Return exp(x) - 1 - x, by its series where that would cancel."""
    series = 1 / 5040 + x * (1 / 40320 + x * (1 / 362880))
    series = 1 / 24 + x * (1 / 120 + x * (1 / 720 + x * series))
    series = x * x * (0.5 + x * (1 / 6 + x * series))
    return tl.where(tl.abs(x) < 0.5, series, tl.exp(x) - 1 - x)


@triton.jit  # type: ignore[untyped-decorator]
def add_tokens(
    integers: tl.tensor,
    floats: tl.tensor,
    policy: tl.tensor,
    position: tl.tensor,
    log_rho: tl.tensor,
    log_r: tl.tensor,
    log_weight: tl.tensor,
    advantage: tl.tensor,
    above: tl.tensor,
    below: tl.tensor,
    is_last_lane: tl.tensor,
) -> None:
    """Add a block of tokens to a record.

    Args:
        integers: The record as int64.
        floats: The same memory as float64.
        policy: Whether the token is the policy's; the rest counts for nothing.
        position: Policy tokens up to and with this one.
        log_rho: log ρ_t.
        log_r: log r_t.
        log_weight: log w_t.
        advantage: A_t.
        above: Whether it was clipped from above.
        below: Whether it was clipped from below.
        is_last_lane: Whether it is the block's last.
    """
    _add_to_sketch(integers + _SKETCH_SLOT, log_rho, policy)
    _add_to_sketch(integers + _SKETCH_SLOT + _SKETCH_BINS, log_r, policy)

    positive, negative = policy & (advantage > 0), policy & (advantage < 0)
    log_rho_there, log_r_there = tl.where(policy, log_rho, 0.0), tl.where(policy, log_r, 0.0)
    weight = tl.where(policy, weight_of(log_weight), 0.0)
    at = _bin_of(position)
    (
        _,
        log_rho_sum,
        log_rho_sumsq,
        log_r_sum,
        log_r_sumsq,
        weight_sum,
        weight_sumsq,
        log_rho_max,
        log_rho_min,
        log_r_max,
        log_r_min,
        signs,
        clips,
    ) = tl.associative_scan(
        (
            at,
            log_rho_there,
            log_rho_there * log_rho_there,
            log_r_there,
            log_r_there * log_r_there,
            weight,
            weight * weight,
            tl.where(policy, _key_of(log_rho), _NO_KEY),
            tl.where(policy, _key_of(-log_rho), _NO_KEY),
            tl.where(policy, _key_of(log_r), _NO_KEY),
            tl.where(policy, _key_of(-log_r), _NO_KEY),
            _three_counters(policy, positive, negative),
            _three_counters(positive & above, negative & above, negative & below),
        ),
        0,
        _within_run,
    )
    # A run ends at the last position of its bin, or, to be continued, with the block.
    closes = _bin_of(position + 1) != at
    tokens = signs & 0x3FF
    ends = (tokens > 0) & ((policy & closes) | (is_last_lane & ~closes))
    sums = floats + at
    _add(sums, log_rho_sum.to(tl.float64), ends)
    _add(sums + BINS, log_rho_sumsq.to(tl.float64), ends)
    _add(sums + 2 * BINS, log_r_sum.to(tl.float64), ends)
    _add(sums + 3 * BINS, log_r_sumsq.to(tl.float64), ends)
    _add(sums + 4 * BINS, weight_sum.to(tl.float64), ends)
    _add(sums + 5 * BINS, weight_sumsq.to(tl.float64), ends)
    extremes = integers + _FIRST_EXTREME * BINS + at
    _raise_to(extremes, log_rho_max, ends)
    _raise_to(extremes + BINS, log_rho_min, ends)
    _raise_to(extremes + 2 * BINS, log_r_max, ends)
    _raise_to(extremes + 3 * BINS, log_r_min, ends)
    counts = integers + _FIRST_COUNT * BINS + at
    _add(counts, tokens.to(tl.int64), ends)
    _add_if_any(counts + BINS, (signs >> 10) & 0x3FF, ends)
    _add_if_any(counts + 2 * BINS, signs >> 20, ends)
    _add_if_any(counts + 3 * BINS, clips & 0x3FF, ends)
    _add_if_any(counts + 4 * BINS, (clips >> 10) & 0x3FF, ends)
    _add_if_any(counts + 5 * BINS, clips >> 20, ends)


@triton.jit  # type: ignore[untyped-decorator]
def add_sequence(
    integers: tl.tensor, floats: tl.tensor, log_ratio: tl.tensor, counts: tl.tensor
) -> None:
    """Add a sequence's Σ log r to a record if it counts; all are scalars."""
    total = log_ratio.to(tl.float64)
    _add(floats + 6 * BINS, total, counts)
    _add(floats + 7 * BINS, total * total, counts)
    _raise_to(integers + (_FIRST_EXTREME + 4) * BINS, _key_of(log_ratio), counts)
    _raise_to(integers + (_FIRST_EXTREME + 5) * BINS, _key_of(-log_ratio), counts)
    _add(integers + (_FIRST_COUNT + 6) * BINS, counts.to(tl.int64), counts)


@triton.jit  # type: ignore[untyped-decorator]
def add_k3(floats: tl.tensor, k3_sum: tl.tensor) -> None:
    """Add a sum of k3 over some tokens to a record."""
    _add(floats + 8 * BINS, k3_sum, k3_sum != 0)


@triton.jit  # type: ignore[untyped-decorator]
def merge(records: tl.tensor, floats: tl.tensor, integers: tl.tensor, COPIES: tl.constexpr) -> None:
    """Merge the copies of a record into its float64 and its int64 rows; a program per row."""
    row = tl.program_id(0)
    slot = tl.arange(0, _LANES)
    inside = slot < BINS
    copy = tl.arange(0, COPIES)[:, None] * (ROWS * BINS)
    found = tl.load(records + copy + row * BINS + slot[None, :], mask=inside[None, :], other=0)
    if row < _FIRST_EXTREME:
        total = tl.sum(found.to(tl.float64, bitcast=True), 0)
        tl.store(floats + row * BINS + slot, total, mask=inside)
    elif row < _FIRST_COUNT:
        largest = _of_key(tl.max(found, 0))
        is_minimum = (row - _FIRST_EXTREME) % 2 == 1
        extreme = tl.where(is_minimum, -largest, largest).to(tl.float64)
        tl.store(floats + row * BINS + slot, extreme, mask=inside)
    else:
        counted = tl.sum(found, 0)
        tl.store(integers + (row - _FIRST_COUNT) * BINS + slot, counted, mask=inside)


# fmt: off
@triton.jit  # type: ignore[untyped-decorator]
def _within_run(
    a: tl.tensor, a1: tl.tensor, a2: tl.tensor, a3: tl.tensor, a4: tl.tensor,
    a5: tl.tensor, a6: tl.tensor, a7: tl.tensor, a8: tl.tensor,
    a9: tl.tensor, a10: tl.tensor, a11: tl.tensor, a12: tl.tensor,
    b: tl.tensor, b1: tl.tensor, b2: tl.tensor, b3: tl.tensor, b4: tl.tensor,
    b5: tl.tensor, b6: tl.tensor, b7: tl.tensor, b8: tl.tensor,
    b9: tl.tensor, b10: tl.tensor, b11: tl.tensor, b12: tl.tensor,
) -> tl.tensor:
    """Combine two stretches of tokens; bin, six sums, four maxima, two counts of their last run."""
    # Bins never fall, so equal last bins mean that all of the right stretch is in it.
    same = a == b
    return (
        b,
        b1 + tl.where(same, a1, 0.0),
        b2 + tl.where(same, a2, 0.0),
        b3 + tl.where(same, a3, 0.0),
        b4 + tl.where(same, a4, 0.0),
        b5 + tl.where(same, a5, 0.0),
        b6 + tl.where(same, a6, 0.0),
        tl.maximum(b7, tl.where(same, a7, b7)),
        tl.maximum(b8, tl.where(same, a8, b8)),
        tl.maximum(b9, tl.where(same, a9, b9)),
        tl.maximum(b10, tl.where(same, a10, b10)),
        b11 + tl.where(same, a11, 0),
        b12 + tl.where(same, a12, 0),
    )
# fmt: on


@triton.jit  # type: ignore[untyped-decorator]
def _bin_of(position: tl.tensor) -> tl.tensor:
    """Return the bin of a position; see `bins.bin_of`."""
    zero_based = tl.maximum(position - 1, 0)
    eighths = zero_based.to(tl.float32).to(tl.int32, bitcast=True) >> _BIN_SHIFT
    late = tl.minimum(eighths - _BIN_OFFSET, BINS - 1)
    return tl.where(zero_based < _EXACT, zero_based, late)


@triton.jit  # type: ignore[untyped-decorator]
def _add_to_sketch(counts: tl.tensor, x: tl.tensor, policy: tl.tensor) -> None:
    """Count each value in its bin; see `histogram.sketch`."""
    bits = x.to(tl.int32, bitcast=True)
    rank = ((bits & _ALL_BUT_SIGN) >> _SKETCH_SHIFT) - _SKETCH_OFFSET
    rank = tl.minimum(tl.maximum(rank, 0), _SKETCH_SIDE)
    at = tl.where(bits < 0, _SKETCH_SIDE - rank, _SKETCH_SIDE + rank)
    _add(counts + at, policy.to(tl.int64), policy)


@triton.jit  # type: ignore[untyped-decorator]
def _three_counters(first: tl.tensor, second: tl.tensor, third: tl.tensor) -> tl.tensor:
    """Return three counts in one int32, ten bits each: enough for blocks of under 1024 tokens."""
    tl.static_assert(first.shape[0] < 1024)
    return first.to(tl.int32) + (second.to(tl.int32) << 10) + (third.to(tl.int32) << 20)


@triton.jit  # type: ignore[untyped-decorator]
def _add(slots: tl.tensor, amount: tl.tensor, where: tl.tensor) -> None:
    tl.atomic_add(slots, amount, mask=where, sem="relaxed")


@triton.jit  # type: ignore[untyped-decorator]
def _add_if_any(slots: tl.tensor, count: tl.tensor, where: tl.tensor) -> None:
    _add(slots, count.to(tl.int64), where & (count > 0))


@triton.jit  # type: ignore[untyped-decorator]
def _raise_to(slots: tl.tensor, key: tl.tensor, where: tl.tensor) -> None:
    """Raise slots of extremes, in which 0 is nothing and any key is more."""
    tl.atomic_max(slots, key.to(tl.int64) - _NO_KEY, mask=where, sem="relaxed")


@triton.jit  # type: ignore[untyped-decorator]
def _key_of(x: tl.tensor) -> tl.tensor:
    """Return an int32 that orders floats; NaN, of either sign, is the largest."""
    bits = x.to(tl.int32, bitcast=True)
    key = tl.where(bits < 0, bits ^ _ALL_BUT_SIGN, bits)
    return tl.where(x != x, _NAN_KEY, key)


@triton.jit  # type: ignore[untyped-decorator]
def _of_key(slot: tl.tensor) -> tl.tensor:
    """Return the float in a slot of extremes; -inf if there was none."""
    key = (slot + _NO_KEY).to(tl.int32)
    bits = tl.where(key < 0, key ^ _ALL_BUT_SIGN, key)
    return tl.where(slot == 0, float("-inf"), bits.to(tl.float32, bitcast=True))
