"""Sums by position, from which every figure about ratios and clipping can be drawn.

They are kept as sums, so that those of micro-batches, ranks and steps merge into exactly what the
whole would have given, and their size does not depend on the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch

from ctpo.objective.position_bins import BINS, bin_of, upper_edges
from ctpo.objective.ratios import CumulativeRatio, policy_positions

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float64, Int64
    from torch import Tensor

    from ctpo.objective.surrogates import TokenTerms


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class PositionStatistics:
    """Sums over policy tokens by bins of their position t; see `position_bins` for the edges.

    log ρ_t is always the cumulative log ratio Σ_{j≤t} log r_j, whatever ratio the objective has,
    and both log ratios are taken before clipping; the clip counts follow the objective's own rule.
    Sums are in float64. `a + b` merges. Lives on the device; `to_columns`, `summary` and
    `spread_fit` read it back to the host, once each.

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
        positive_tokens: Number of tokens with A > 0.
        negative_tokens: Number of tokens with A < 0.
        clipped_high: Number of tokens with A > 0 clipped at the upper bound.
        clipped_low: Number of tokens with A < 0 clipped at the lower bound.
        clipped_dual: Number of tokens with A < 0 clipped at the dual clip.
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
    positive_tokens: Int64[Tensor, " bins"]
    negative_tokens: Int64[Tensor, " bins"]
    clipped_high: Int64[Tensor, " bins"]
    clipped_low: Int64[Tensor, " bins"]
    clipped_dual: Int64[Tensor, " bins"]

    @classmethod
    def zeros(cls, device: torch.device | str | None = None) -> PositionStatistics:
        """Return the statistics of no tokens, the neutral element of `+`.

        Args:
            device: Where to keep them.
        """
        empty = {}
        for name in _names():
            kind = name.rpartition("_")[2]
            dtype = torch.float64 if kind in _OF_AN_EMPTY_BIN else torch.int64
            empty[name] = torch.full(
                (BINS,), _OF_AN_EMPTY_BIN.get(kind, 0), dtype=dtype, device=device
            )
        return cls(**empty)

    @classmethod
    def collect(
        cls,
        log_ratio: Float[Tensor, "B T"],
        advantages: Float[Tensor, "B T"],
        mask: Bool[Tensor, "B T"],
        terms: TokenTerms,
    ) -> PositionStatistics:
        """Return the statistics of a batch. Nothing is read back to the host.

        Args:
            log_ratio: log r_t in nats, 0 where masked.
            advantages: Advantage of each token, anything where masked.
            mask: True on policy tokens.
            terms: What the surrogate said about each token, anything where masked.
        """
        empty = cls.zeros(log_ratio.device)
        bins = bin_of(policy_positions(mask)).flatten()
        log_r = log_ratio.double()
        log_rho = CumulativeRatio().log_weight(log_ratio, mask).double()

        def count(flags: Tensor) -> Tensor:
            return empty.tokens.index_add(0, bins, (flags & mask).flatten().long())

        def total(values: Tensor) -> Tensor:
            return empty.log_r_sum.index_add(0, bins, torch.where(mask, values, 0.0).flatten())

        def smallest(values: Tensor) -> Tensor:
            candidates = torch.where(mask, values, math.inf).flatten()
            return empty.log_r_min.scatter_reduce(0, bins, candidates, "amin")

        return cls(
            tokens=count(mask),
            log_rho_sum=total(log_rho),
            log_rho_sumsq=total(log_rho.square()),
            log_rho_min=smallest(log_rho),
            log_rho_max=-smallest(-log_rho),
            log_r_sum=total(log_r),
            log_r_sumsq=total(log_r.square()),
            log_r_min=smallest(log_r),
            log_r_max=-smallest(-log_r),
            positive_tokens=count(advantages > 0),
            negative_tokens=count(advantages < 0),
            clipped_high=count(terms.clipped_high),
            clipped_low=count(terms.clipped_low),
            clipped_dual=count(terms.clipped_dual),
        )

    def __add__(self, other: PositionStatistics) -> PositionStatistics:
        merged = {}
        for name in _names():
            merge = _MERGE.get(name.rpartition("_")[2], torch.add)
            merged[name] = merge(getattr(self, name), getattr(other, name))
        return PositionStatistics(**merged)

    def to_columns(self) -> dict[str, list[int | float]]:
        """Return the non-empty bins as columns of a table. Reads back to the host, once.

        Returns:
            `position_low` and `position_high`, the first and the last position of each bin, then
            the attributes by their names. Counts are int, the rest float.
        """
        # float64 holds counts up to 2^53 exactly, so that one copy takes all.
        rows = torch.stack([getattr(self, name).double() for name in _names()]).tolist()
        table = dict(zip(_names(), rows, strict=True))
        high = upper_edges().tolist()
        low = [1, *(edge + 1 for edge in high[:-1])]
        filled = [i for i, tokens in enumerate(table["tokens"]) if tokens]
        columns: dict[str, list[int | float]] = {
            "position_low": [low[i] for i in filled],
            "position_high": [high[i] for i in filled],
        }
        for name, column in table.items():
            number = float if name.rpartition("_")[2] in _OF_AN_EMPTY_BIN else int
            columns[name] = [number(column[i]) for i in filled]
        return columns

    def summary(self) -> dict[str, float]:
        """Return what to log for a step, over all positions. Reads back to the host, once.

        Returns:
            `clip/high`, `clip/low`, `clip/dual`: clipped tokens as a share of all tokens.
            `log_ratio/mean`, `log_ratio/std`: of log r_t in nats. `log_rho/mean`, `log_rho/std`,
            `log_rho/min`, `log_rho/max`: of log ρ_t in nats. All NaN if there are no tokens.
        """
        columns = self.to_columns()
        tokens = sum(columns["tokens"])
        if not tokens:
            return dict.fromkeys(_SUMMARY, math.nan)
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
        )
        return dict(zip(_SUMMARY, values, strict=True))

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


_OF_AN_EMPTY_BIN = {"sum": 0.0, "sumsq": 0.0, "min": math.inf, "max": -math.inf}
"""Value in an empty bin by an attribute's suffix, for those in float64; all others count."""

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
)


def _names() -> list[str]:
    return [field.name for field in fields(PositionStatistics)]


def _std(count: float, total: float, sumsq: float) -> float:
    """Return the unbiased standard deviation, 0 for a single value."""
    variance = (sumsq - total * total / count) / max(count - 1, 1)
    return math.sqrt(max(variance, 0.0))
