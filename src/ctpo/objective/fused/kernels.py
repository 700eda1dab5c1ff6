"""The Triton kernels behind `fused`: the whole forward of an objective in one pass over the tokens.

A program walks along a sequence, or one of the chunks that it is split into, a block of tokens at a
time, and carries the running log ρ_t (in float64) and position from block to block.

Imports Triton; `fused` imports this file where it needs it.
"""

import triton
import triton.language as tl

from ctpo.objective.fused import kernel_statistics

_RECORD = tl.constexpr(kernel_statistics.ROWS.value * kernel_statistics.BINS.value)


@triton.jit  # type: ignore[untyped-decorator]
def forward(
    logprobs: tl.tensor,
    logprobs_row: tl.tensor,
    logprobs_step: tl.tensor,
    old_logprobs: tl.tensor,
    old_row: tl.tensor,
    old_step: tl.tensor,
    mask: tl.tensor,
    mask_row: tl.tensor,
    mask_step: tl.tensor,
    advantages: tl.tensor,
    advantages_row: tl.tensor,
    advantages_step: tl.tensor,
    cu_seqlens: tl.tensor,
    sequences: tl.tensor,
    columns: tl.tensor,
    chunks: tl.tensor,
    chunk_sums: tl.tensor,
    chunk_lengths: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    dual: tl.tensor,
    power: tl.tensor,
    value: tl.tensor,
    slope: tl.tensor,
    log_ratio: tl.tensor,
    log_weight: tl.tensor,
    records: tl.tensor,
    records_as_floats: tl.tensor,
    RATIO: tl.constexpr,
    SCALE: tl.constexpr,
    CLIPPED: tl.constexpr,
    PACKED: tl.constexpr,
    PER_TOKEN: tl.constexpr,
    SPLIT: tl.constexpr,
    STATISTICS: tl.constexpr,
    COPIES: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    """Write loss, slope, log r, log w and statistics; a program per chunk of a sequence.

    Args:
        logprobs: log π_θ; like the next three with its strides per sequence and per token.
        logprobs_row: 0 for packed tokens, as in the next three.
        logprobs_step: In elements, as all strides.
        old_logprobs: log π_old.
        old_row: Stride.
        old_step: Stride.
        mask: 0 or 1, one byte each.
        mask_row: Stride.
        mask_step: Stride.
        advantages: A, per token or per sequence.
        advantages_row: Stride.
        advantages_step: Stride, 0 if per sequence.
        cu_seqlens: Where packed sequences begin; not read for padded ones.
        sequences: Number of sequences.
        columns: T, or N of packed tokens.
        chunks: Number of chunks of each sequence.
        chunk_sums: Their Σ log r; not read unless `SPLIT`.
        chunk_lengths: Their policy tokens; the same.
        low: The window's bounds for one factor, of log w.
        high: The same.
        dual: The same.
        power: Exponent of the number of factors in the bounds, if `SCALE` is "power".
        value: Loss per token, to be written; like all that is written, contiguous.
        slope: dL/dlog w.
        log_ratio: log r.
        log_weight: log w; not written if the ratio is the token's.
        records: Copies of a statistics record, zero.
        records_as_floats: The same memory as float64.
        RATIO: "token", "cumulative" or "mean" (the cumulative geometric one).
        SCALE: n^power: "one", "sqrt", "rsqrt" or "power".
        CLIPPED: Whether there is a window.
        PACKED: Whether tokens are packed.
        PER_TOKEN: Whether advantages are per token.
        SPLIT: 0, or a power of two of at least `chunks`.
        STATISTICS: Whether to collect them.
        COPIES: Number of copies.
        BLOCK: Tokens per block.
        STAGES: Blocks in flight.
    """
    program = tl.program_id(0)
    sequence = (program // chunks).to(tl.int64)
    chunk = program % chunks
    begin, length, extent = _extent(cu_seqlens, sequence, sequences, columns, PACKED)
    first, last = _chunk(extent, chunk, chunks, BLOCK)
    logprobs += sequence * logprobs_row + begin * logprobs_step
    old_logprobs += sequence * old_row + begin * old_step
    mask += sequence * mask_row + begin * mask_step
    advantages += sequence * advantages_row + begin * advantages_step
    # A row of padded tokens begins at a multiple of T, and packed sequences where they say.
    if not PACKED:
        begin = sequence * columns
    value, slope = value + begin, slope + begin
    log_ratio, log_weight = log_ratio + begin, log_weight + begin
    records += (program % COPIES) * _RECORD
    records_as_floats += (program % COPIES) * _RECORD

    log_rho_before = tl.zeros((), tl.float64)
    position_before = tl.zeros((), tl.int32)
    if SPLIT > 0:
        other = tl.arange(0, SPLIT)
        earlier = other < chunk
        chunk_sums += sequence * chunks
        chunk_lengths += sequence * chunks
        log_rho_before += tl.sum(tl.load(chunk_sums + other, mask=earlier, other=0.0), 0)
        position_before += tl.sum(tl.load(chunk_lengths + other, mask=earlier, other=0), 0)
    k3_sum = tl.zeros((), tl.float64)
    lane = tl.arange(0, BLOCK)
    if not PER_TOKEN:
        advantage = tl.load(advantages).to(tl.float32) + tl.zeros((BLOCK,), tl.float32)

    for start in tl.range(first, last, BLOCK, num_stages=STAGES):
        here = start + lane
        inside = here < last
        at = here.to(tl.int64)
        policy, log_r = _log_r(
            logprobs + at * logprobs_step,
            old_logprobs + at * old_step,
            mask + at * mask_step,
            inside,
            here < length,
        )
        if PER_TOKEN:
            advantage = tl.load(advantages + at * advantages_step, mask=inside, other=0.0)
            advantage = advantage.to(tl.float32)
        log_rho = (log_rho_before + tl.cumsum(log_r, 0).to(tl.float64)).to(tl.float32)
        position = position_before + tl.cumsum(policy.to(tl.int32), 0)
        log_rho_before += tl.sum(log_r.to(tl.float64), 0)
        position_before += tl.sum(policy.to(tl.int32), 0)

        factors = tl.maximum(position, 1).to(tl.float32)
        if RATIO == "token":
            log_w = log_r
        elif RATIO == "cumulative":
            log_w = log_rho
        else:
            log_w = tl.div_rn(log_rho, factors)
        if CLIPPED:
            scale = _scale(factors, power, SCALE)
            upper = tl.where(advantage > 0, high * scale, dual * scale)
            lower = tl.where(advantage < 0, low * scale, float("-inf"))
            above, below = log_w > upper, log_w < lower
            # where() and not minimum(), which would hide a NaN.
            effective = tl.where(above, upper, tl.where(below, lower, log_w))
        else:
            above, below, effective = log_w != log_w, log_w != log_w, log_w
        loss = tl.where(policy, -advantage * kernel_statistics.weight_of(effective), 0.0)
        tl.store(value + at, loss, mask=inside)
        tl.store(slope + at, tl.where(above | below, 0.0, loss), mask=inside)
        tl.store(log_ratio + at, log_r, mask=inside)
        if RATIO != "token":
            tl.store(log_weight + at, log_w, mask=inside)
        if STATISTICS:
            k3_sum += tl.sum(kernel_statistics.k3_of(log_r).to(tl.float64), 0)
            kernel_statistics.add_tokens(
                records,
                records_as_floats,
                policy,
                position,
                log_rho,
                log_r,
                log_w,
                advantage,
                above,
                below,
                lane == BLOCK - 1,
            )

    if STATISTICS:
        kernel_statistics.add_k3(records_as_floats, k3_sum)
        # The last chunk knows the whole sequence.
        kernel_statistics.add_sequence(
            records,
            records_as_floats,
            log_rho_before.to(tl.float32),
            (chunk == chunks - 1) & (position_before > 0),
        )


@triton.jit  # type: ignore[untyped-decorator]
def chunk_totals(
    logprobs: tl.tensor,
    logprobs_row: tl.tensor,
    logprobs_step: tl.tensor,
    old_logprobs: tl.tensor,
    old_row: tl.tensor,
    old_step: tl.tensor,
    mask: tl.tensor,
    mask_row: tl.tensor,
    mask_step: tl.tensor,
    cu_seqlens: tl.tensor,
    sequences: tl.tensor,
    columns: tl.tensor,
    chunks: tl.tensor,
    chunk_sums: tl.tensor,
    chunk_lengths: tl.tensor,
    PACKED: tl.constexpr,
    BLOCK: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    """Write Σ log r and the policy tokens of each chunk; arguments as for `forward`."""
    program = tl.program_id(0)
    sequence = (program // chunks).to(tl.int64)
    begin, length, extent = _extent(cu_seqlens, sequence, sequences, columns, PACKED)
    first, last = _chunk(extent, program % chunks, chunks, BLOCK)
    logprobs += sequence * logprobs_row + begin * logprobs_step
    old_logprobs += sequence * old_row + begin * old_step
    mask += sequence * mask_row + begin * mask_step
    log_rho = tl.zeros((), tl.float64)
    policy_tokens = tl.zeros((), tl.int32)
    for start in tl.range(first, last, BLOCK, num_stages=STAGES):
        here = start + tl.arange(0, BLOCK)
        at = here.to(tl.int64)
        policy, log_r = _log_r(
            logprobs + at * logprobs_step,
            old_logprobs + at * old_step,
            mask + at * mask_step,
            here < last,
            here < length,
        )
        log_rho += tl.sum(log_r.to(tl.float64), 0)
        policy_tokens += tl.sum(policy.to(tl.int32), 0)
    tl.store(chunk_sums + program, log_rho)
    tl.store(chunk_lengths + program, policy_tokens)


@triton.jit  # type: ignore[untyped-decorator]
def _extent(
    cu_seqlens: tl.tensor,
    sequence: tl.tensor,
    sequences: tl.tensor,
    columns: tl.tensor,
    PACKED: tl.constexpr,
) -> tl.tensor:
    """Return a sequence's first token (0 if padded), its length, and how far to write from there.

    Tokens behind the last packed sequence are nobody's; the last one writes their zeros.
    """
    if PACKED:
        begin = tl.minimum(tl.load(cu_seqlens + sequence).to(tl.int64), columns)
        end = tl.minimum(tl.load(cu_seqlens + sequence + 1).to(tl.int64), columns)
        length = tl.maximum(end - begin, 0).to(tl.int32)
        extent = tl.where(sequence == sequences - 1, columns - begin, length).to(tl.int32)
    else:
        begin = tl.zeros((), tl.int64)
        length = tl.zeros((), tl.int32) + columns
        extent = length
    return begin, length, extent


@triton.jit  # type: ignore[untyped-decorator]
def _chunk(
    extent: tl.tensor, chunk: tl.tensor, chunks: tl.tensor, BLOCK: tl.constexpr
) -> tl.tensor:
    """Return where a chunk begins and ends in its sequence; all but the last are whole blocks."""
    tokens = tl.cdiv(tl.cdiv(extent, chunks), BLOCK) * BLOCK
    first = tl.minimum(chunk * tokens, extent)
    return first, tl.minimum(first + tokens, extent)


@triton.jit  # type: ignore[untyped-decorator]
def _log_r(
    logprobs: tl.tensor,
    old_logprobs: tl.tensor,
    mask: tl.tensor,
    inside: tl.tensor,
    of_sequence: tl.tensor,
) -> tl.tensor:
    """Return whether each token is the policy's and its log r, 0 if not."""
    policy = (tl.load(mask, mask=inside, other=0) != 0) & of_sequence
    current = tl.load(logprobs, mask=inside, other=0.0).to(tl.float32)
    old = tl.load(old_logprobs, mask=inside, other=0.0).to(tl.float32)
    return policy, tl.where(policy, current - old, 0.0)


@triton.jit  # type: ignore[untyped-decorator]
def _scale(factors: tl.tensor, power: tl.tensor, SCALE: tl.constexpr) -> tl.tensor:
    """Return n^power."""
    if SCALE == "one":
        result = factors * 0.0 + 1.0
    elif SCALE == "sqrt":
        result = tl.sqrt_rn(factors)
    elif SCALE == "rsqrt":
        result = tl.div_rn(1.0, tl.sqrt_rn(factors))
    else:
        result = tl.exp2(power * tl.log2(factors))
    return result
