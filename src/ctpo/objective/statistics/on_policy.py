"""Whether log-probs that should agree do, and what is the likely cause if not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Cause = Literal["none", "truncated sampling", "rounding", "engine mismatch"]

_WORDS: dict[Cause, str] = {
    "none": "old and new log-probs agree",
    "truncated sampling": "nearly every log r_t lies on one side of 0: one of the two "
    "distributions was cut (top_p, top_k, min_p), and the old log-probs are of the distribution "
    "sampled from. Set top_p=1 and top_k=0, and take old log-probs from the trainer",
    "rounding": "log r_t is small, of both signs and without drift: log-probs were rounded "
    "(bfloat16 rounds by up to 0.031) or computed at other shapes. Compute logits and log-probs in "
    "float32 and both sides on the same micro-batches",
    "engine mismatch": "the two log-probs come from models that differ: other weights (a stale or "
    "unsynchronised engine), another temperature, dropout left on, another chat template or "
    "retokenised text, or masks that are shifted by a token. Take old log-probs from the trainer",
}

# bfloat16 has 8 significant bits: log-probs between 4 and 8 are rounded by up to 2^-6, their
# difference by twice that.
_ROUNDING = 2.0**-5
# A mean this many standard errors from 0 is a drift.
_SIGMAS = 5.0


@dataclass(frozen=True)
class OnPolicyReport:
    """What a batch that should be on-policy shows.

    Attributes:
        passes: Whether every |log ρ_t| is within the tolerance.
        worst: Largest |log ρ_t| in nats.
        drift: Mean of log ρ_t at the last position bin that at least half of the sequences reach,
            per token, in nats.
        cause: The likely cause of a failure.
    """

    passes: bool
    worst: float
    drift: float
    cause: Cause

    def __str__(self) -> str:
        if self.passes:
            return f"on-policy: largest |log rho| is {self.worst:.2g}"
        return (
            f"NOT on-policy: largest |log rho| is {self.worst:.2g}, drift per token "
            f"{self.drift:.2g}; likely {self.cause}: {_WORDS[self.cause]}"
        )


def judge(
    columns: Mapping[str, Sequence[float]], quantiles: Sequence[float], tolerance: float
) -> OnPolicyReport:
    """Return the report.

    Args:
        columns: Statistics by position, as `PositionStatistics.to_columns` gives them.
        quantiles: The 1 % and the 99 % quantile of log r_t.
        tolerance: Largest |log ρ_t| in nats that passes.

    Raises:
        ValueError: The tolerance is negative, or there are no tokens.
    """
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance is {tolerance!r}; it must be finite and at least 0, e.g. 1e-3")
    tokens = columns["tokens"]
    if not tokens:
        raise ValueError("there are no policy tokens to check")
    # A NaN is neither smaller nor larger than anything; min and max would hide it.
    edges = [*columns["log_rho_min"], *columns["log_rho_max"]]
    worst = math.nan if any(map(math.isnan, edges)) else max(map(abs, edges))
    reached = [i for i, n in enumerate(tokens) if n >= tokens[0] / 2]
    last = reached[-1]
    middle = (columns["position_low"][last] + columns["position_high"][last]) / 2
    drift = columns["log_rho_sum"][last] / tokens[last] / middle
    if worst <= tolerance:
        return OnPolicyReport(True, worst, drift, "none")

    count, total = sum(tokens), sum(columns["log_r_sum"])
    mean = total / count
    variance = max(sum(columns["log_r_sumsq"]) / count - mean**2, 0.0)
    drifts = abs(mean) > _SIGMAS * math.sqrt(variance / count) + tolerance / middle
    low, high = quantiles
    # With cut sampling every log r has the sign of the mass cut off, in one direction or the other.
    if drifts and (high < 0.02 * abs(low) or low > -0.02 * abs(high)):
        return OnPolicyReport(False, worst, drift, "truncated sampling")
    if max(abs(low), abs(high)) <= _ROUNDING and not drifts:
        return OnPolicyReport(False, worst, drift, "rounding")
    return OnPolicyReport(False, worst, drift, "engine mismatch")
