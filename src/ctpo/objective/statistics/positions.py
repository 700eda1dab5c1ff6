"""Sums by position, from which every figure about ratios and clipping can be drawn.

They are kept as sums, so that those of micro-batches, ranks and steps merge into exactly what the
whole would have given, and their size does not depend on the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal

import torch

from ctpo.objective.parameters import unknown_name
from ctpo.objective.statistics import histogram
from ctpo.objective.statistics.bins import BINS, upper_edges
from ctpo.objective.statistics.on_policy import OnPolicyReport, judge
from ctpo.objective.statistics.sums import sums_of

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Int64
    from torch import Tensor

    from ctpo.objective.parts import Tokens, TokenTerms


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PositionStatistics:
    """Sums over policy tokens by bins of their position t, and over sequences.

    See `position_bins` for the bins' edges and `sketch` for the sketches'. log ρ_t is always the
    cumulative log ratio Σ_{j≤t} log r_j, whatever ratio the objective has, and all log ratios are
    taken before clipping; clip counts follow the objective's own rule. Sums are in float64. `a + b`
    merges. All of it stays on the device; a method reads it back to the host, once.

    Attributes:
        tokens: Number of policy tokens.
        log_rho_sum: Σ log ρ_t in nats.
        log_rho_sumsq: Σ (log ρ_t)².
        log_rho_min: Smallest log ρ_t; +inf in an empty bin.
        log_rho_max: Largest log ρ_t; -inf in an empty bin.
        log_r_sum: Σ log r_t in nats.
        log_r_sumsq: Σ (log r_t)².
        log_r_min: Smallest log r_t; +inf in an empty bin.
        log_r_max: Largest log r_t; -inf in an empty bin.
        weight_sum: Σ w_t of the objective's own ratio.
        weight_sumsq: Σ w_t², for the effective sample size (Σ w)² / Σ w².
        positive_tokens: Number of tokens with A > 0.
        negative_tokens: Number of tokens with A < 0.
        clipped_high: Number of tokens above the window, of either sign.
        clipped_high_negative: Those of them with A < 0; only surrogates that clip both signs alike,
            such as CISPO's, have any.
        clipped_low: Number of tokens below the window, of either sign.
        clipped_low_positive: Those of them with A > 0; as above.
        clipped_dual: Number of tokens with A < 0 above the dual clip.
        log_rho_sketch: Histogram of log ρ_t over all positions.
        log_r_sketch: Histogram of log r_t over all positions.
        sequences: Number of sequences with policy tokens.
        sequence_log_ratio_sum: Σ over sequences of log ρ_H; less its sign, of the k1 estimate of
            KL(π_old‖π_θ).
        sequence_log_ratio_sumsq: Σ (log ρ_H)².
        sequence_log_ratio_min: Smallest log ρ_H; +inf without sequences.
        sequence_log_ratio_max: Largest log ρ_H; -inf without sequences.
        k3_sum: Σ over tokens of r_t - 1 - log r_t: the k3 estimate of the same, summed over
            sequences.
    """

    tokens: Int64[Tensor, " bins"]
    log_rho_sum: Float64[Tensor, " bins"]
    log_rho_sumsq: Float64[Tensor, " bins"]
    log_rho_min: Float64[Tensor, " bins"]
    log_rho_max: Float64[Tensor, " bins"]
    log_r_sum: Float64[Tensor, " bins"]
    log_r_sumsq: Float64[Tensor, " bins"]
    log_r_min: Float64[Tensor, " bins"]
    log_r_max: Float64[Tensor, " bins"]
    weight_sum: Float64[Tensor, " bins"]
    weight_sumsq: Float64[Tensor, " bins"]
    positive_tokens: Int64[Tensor, " bins"]
    negative_tokens: Int64[Tensor, " bins"]
    clipped_high: Int64[Tensor, " bins"]
    clipped_high_negative: Int64[Tensor, " bins"]
    clipped_low: Int64[Tensor, " bins"]
    clipped_low_positive: Int64[Tensor, " bins"]
    clipped_dual: Int64[Tensor, " bins"]
    log_rho_sketch: Int64[Tensor, " sketch"]
    log_r_sketch: Int64[Tensor, " sketch"]
    sequences: Int64[Tensor, ""]
    sequence_log_ratio_sum: Float64[Tensor, ""]
    sequence_log_ratio_sumsq: Float64[Tensor, ""]
    sequence_log_ratio_min: Float64[Tensor, ""]
    sequence_log_ratio_max: Float64[Tensor, ""]
    k3_sum: Float64[Tensor, ""]

    @classmethod
    def zeros(cls, device: torch.device | str | None = None) -> PositionStatistics:
        """Return the statistics of no tokens, the neutral element of `+`.

        Args:
            device: Where to keep them.
        """
        empty = {}
        for field in fields(cls):
            kind = field.name.rpartition("_")[2]
            dtype = torch.float64 if kind in _OF_NOTHING else torch.int64
            empty[field.name] = torch.full(
                _shape(field.name), _OF_NOTHING.get(kind, 0), dtype=dtype, device=device
            )
        return cls(**empty)

    @classmethod
    def collect(
        cls, tokens: Tokens, log_rho: Float[Tensor, "*tokens"], terms: TokenTerms
    ) -> PositionStatistics:
        """Return the statistics of a batch. Nothing is read back to the host from a GPU.

        Args:
            tokens: The batch.
            log_rho: log ρ_t, anything where masked.
            terms: What the surrogate said about each token, anything where masked.
        """
        return cls(**sums_of(tokens, log_rho, terms))

    def __add__(self, other: PositionStatistics) -> PositionStatistics:
        merged = {}
        for field in fields(PositionStatistics):
            merge = _MERGE.get(field.name.rpartition("_")[2], torch.add)
            merged[field.name] = merge(getattr(self, field.name), getattr(other, field.name))
        return PositionStatistics(**merged)

    def to_columns(self) -> dict[str, list[int | float]]:
        """Return the non-empty bins as columns of a table. Reads back to the host, once.

        Returns:
            `position_low` and `position_high`, the first and the last position of each bin, then
            the attributes by bin, by their names. Counts are int, the rest float.
        """
        # float64 holds counts up to 2^53 exactly, so that one copy takes all.
        rows = torch.stack([getattr(self, name).double() for name in _COLUMNS]).tolist()
        table = dict(zip(_COLUMNS, rows, strict=True))
        high = upper_edges().tolist()
        low = [1, *(edge + 1 for edge in high[:-1])]
        filled = [i for i, tokens in enumerate(table["tokens"]) if tokens]
        columns: dict[str, list[int | float]] = {
            "position_low": [low[i] for i in filled],
            "position_high": [high[i] for i in filled],
        }
        for name, column in table.items():
            number = float if name.rpartition("_")[2] in _OF_NOTHING else int
            columns[name] = [number(column[i]) for i in filled]
        return columns

    def summary(self) -> dict[str, float]:
        """Return what to log for a step, over all positions. Reads back to the host, twice.

        Returns:
            `clip/high`, `clip/low`, `clip/dual`: clipped tokens as a share of all tokens.
            `log_ratio/mean`, `log_ratio/std`: of log r_t in nats. `log_rho/mean`, `log_rho/std`,
            `log_rho/min`, `log_rho/max`: of log ρ_t in nats. `kl/k1`, `kl/k3`: estimates of
            KL(π_old‖π_θ) per sequence in nats. `ess`: effective sample size of the weights as a
            share of the tokens. All NaN if there are no tokens.
        """
        columns = self.to_columns()
        tokens = sum(columns["tokens"])
        if not tokens:
            return dict.fromkeys(_SUMMARY, math.nan)
        sequences, log_ratio_sum, k3_sum = torch.stack(
            [self.sequences.double(), self.sequence_log_ratio_sum, self.k3_sum]
        ).tolist()
        r_sum, r_sumsq = sum(columns["log_r_sum"]), sum(columns["log_r_sumsq"])
        rho_sum, rho_sumsq = sum(columns["log_rho_sum"]), sum(columns["log_rho_sumsq"])
        values = (
            sum(columns["clipped_high"]) / tokens,
            sum(columns["clipped_low"]) / tokens,
            sum(columns["clipped_dual"]) / tokens,
            r_sum / tokens,
            _std(tokens, r_sum, r_sumsq),
            rho_sum / tokens,
            _std(tokens, rho_sum, rho_sumsq),
            min(columns["log_rho_min"]),
            max(columns["log_rho_max"]),
            -log_ratio_sum / sequences if sequences else math.nan,
            k3_sum / sequences if sequences else math.nan,
            # Weights can all have underflowed to 0; then none of the tokens counts.
            sum(columns["weight_sum"]) ** 2 / ((tokens * sum(columns["weight_sumsq"])) or 1.0),
        )
        return dict(zip(_SUMMARY, values, strict=True))

    def quantiles(
        self, shares: Sequence[float], of: Literal["log_rho", "log_r"] = "log_rho"
    ) -> list[float]:
        """Return quantiles over all positions, right to about 3 %. Reads back to the host, once.

        Args:
            shares: Which, each from 0 to 1: 0.5 is the median.
            of: log ρ_t or log r_t.

        Returns:
            Quantiles in nats; NaN if there are no tokens.

        Raises:
            ValueError: A share is outside 0 to 1, or `of` is neither.
        """
        if of not in ("log_rho", "log_r"):
            raise unknown_name("quantity", of, ("log_rho", "log_r"))
        return histogram.quantiles(getattr(self, f"{of}_sketch").tolist(), shares)

    def on_policy_check(self, tolerance: float = 1e-3) -> OnPolicyReport:
        """Return whether a batch that should be on-policy is. Reads back to the host, twice.

        Where the policy has not moved, log r_t is 0 everywhere, and log ρ_t has mean 0 at every t.
        Whatever is not 0 is a mismatch between the log-probs, which a product raises to the power
        t; the report names the likely cause.

        Args:
            tolerance: Largest |log ρ_t| in nats that passes, at any t. 1e-3 lets rounding in
                float32 pass over thousands of tokens.
        """
        return judge(self.to_columns(), self.quantiles((0.01, 0.99), of="log_r"), tolerance)

    def spread_fit(self) -> float:
        """Return σ̂ of std(log ρ_t) ≈ σ √t, the law behind a window with `power=0.5`.

        Least squares through the origin, weighted by tokens, over the bins b with at least two:
        σ̂ = Σ_b n_b s_b √t_b / Σ_b n_b t_b, with s_b the unbiased standard deviation of log ρ_t
        within the bin and t_b its middle position. Reads back to the host, once.
        Source: CTPO, arXiv 2605.07331, which reports 0.0335 to 0.0393.

        Returns:
            σ̂ in nats; NaN if no bin has two tokens.
        """
        columns = self.to_columns()
        above = below = 0.0
        for low, high, tokens, total, sumsq in zip(
            columns["position_low"],
            columns["position_high"],
            columns["tokens"],
            columns["log_rho_sum"],
            columns["log_rho_sumsq"],
            strict=True,
        ):
            if tokens >= 2:
                middle = (low + high) / 2
                above += tokens * _std(tokens, total, sumsq) * math.sqrt(middle)
                below += tokens * middle
        return above / below if below else math.nan


_OF_NOTHING = {"sum": 0.0, "sumsq": 0.0, "min": math.inf, "max": -math.inf}
"""Value without tokens by an attribute's suffix, for those in float64; all others count."""

_MERGE = {"min": torch.minimum, "max": torch.maximum}
"""How to merge by an attribute's suffix; all others add up."""

_SUMMARY = (
    "clip/high",
    "clip/low",
    "clip/dual",
    "log_ratio/mean",
    "log_ratio/std",
    "log_rho/mean",
    "log_rho/std",
    "log_rho/min",
    "log_rho/max",
    "kl/k1",
    "kl/k3",
    "ess",
)


def _shape(name: str) -> tuple[int, ...]:
    if name.endswith("_sketch"):
        return (histogram.BINS,)
    return () if name.startswith("sequence") or name == "k3_sum" else (BINS,)


_COLUMNS = [field.name for field in fields(PositionStatistics) if _shape(field.name) == (BINS,)]
"""The attributes with one entry per position bin."""


def _std(count: float, total: float, sumsq: float) -> float:
    """Return the unbiased standard deviation, 0 for a single value."""
    variance = (sumsq - total * total / count) / max(count - 1, 1)
    return math.sqrt(max(variance, 0.0))
