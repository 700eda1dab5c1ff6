"""Statistics by token position: pooled over batches, and what is read off them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ctpo.intervals import PERCENTILES, draws

# The columns of positions.parquet that the report needs.
COLUMNS = (
    "batch",
    "position_low",
    "position_high",
    "tokens",
    "log_rho_sum",
    "log_rho_sumsq",
    "clipped_high",
    "clipped_low",
    "clipped_dual",
)

# Under this many tokens a bin's spread is noise (some 13 % standard error at 32) and is not drawn.
MIN_TOKENS = 32
# Positions that fewer responses reach are left out: a few ramblings would fill half the axis.
MIN_REACH = 0.02
# An axis does not stretch to a spike that only fewer responses than this show.
FEW = 0.2
# Fewer batches say nothing about how much batches differ.
MIN_BATCHES = 3
_RESAMPLES = 1_000


@dataclass(frozen=True)
class ByPosition:
    """Statistics by position bin, every field [N], in the order of positions.

    Attributes:
        position: Mean position of the bin, t = 1 for the first token that the policy wrote.
        tokens: Tokens seen, counted once per optimizer update.
        mean: Mean of the cumulative log-ratio log ρ_t.
        std: Standard deviation of log ρ_t.
        clip_high: Share of tokens without gradient as log ρ_t is above the window, for A > 0.
        clip_low: The same below the window, for A < 0.
        clip_dual: The same above the dual clip, for A < 0.
        responses: Responses that reach the bin.
        reach: The same as a share of all.
        intervals: Lower and upper end of 95 % intervals by name, `mean`, `std` or `clip_total`, and
            `power` of the exponent of `fit_spread`: a bootstrap over batches, empty of fewer than
            `MIN_BATCHES`.
    """

    position: np.ndarray
    tokens: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    clip_high: np.ndarray
    clip_low: np.ndarray
    clip_dual: np.ndarray
    responses: np.ndarray
    reach: np.ndarray
    intervals: Mapping[str, tuple[np.ndarray, np.ndarray]]

    @property
    def clip_total(self) -> np.ndarray:
        """Share of tokens without gradient, [N]; the three kinds exclude each other."""
        return self.clip_high + self.clip_low + self.clip_dual

    @property
    def common(self) -> np.ndarray:
        """Which positions at least `FEW` of the responses reach, [N]."""
        return self.reach >= FEW


@dataclass(frozen=True)
class SpreadFit:
    """How the spread of log ρ_t grows with t.

    Attributes:
        sigma: σ̂ of the fit std(log ρ_t) = σ̂√t.
        power: Exponent of the fit std(log ρ_t) = c·t^power, with the exponent free; one half is
            what independent token ratios would give. NaN where all spreads are zero.
    """

    sigma: float
    power: float


class Positions:
    """Sums by batch and position bin, as `positions.parquet` holds them."""

    def __init__(self, columns: Mapping[str, np.ndarray]) -> None:
        self.columns = columns

    @property
    def batches(self) -> np.ndarray:
        """The rollout batches, ascending, [N]."""
        return np.unique(self.columns["batch"])

    def thirds(self) -> list[np.ndarray]:
        """The rollout batches cut into early, middle and late; fewer parts for a very short run."""
        return [part for part in np.array_split(self.batches, 3) if len(part)]

    def pool(self, batches: np.ndarray | None = None) -> ByPosition:
        """Add the sums of several batches up and divide.

        Args:
            batches: Rollout batches to pool; None pools all of them.

        Returns:
            Statistics of the bins with at least `MIN_TOKENS` tokens, as far as at least `MIN_REACH`
            of the responses go.
        """
        columns = self.columns
        chosen = np.isin(columns["batch"], self.batches if batches is None else batches)
        low, bin_of_row = np.unique(columns["position_low"][chosen], return_inverse=True)
        units, unit_of_row = np.unique(columns["batch"][chosen], return_inverse=True)
        high = np.zeros_like(low)
        high[bin_of_row] = columns["position_high"][chosen]
        shape = len(units), len(low)

        def table(name: str) -> np.ndarray:
            weights = columns[name][chosen].astype(float)
            cells = unit_of_row * shape[1] + bin_of_row
            return np.bincount(cells, weights=weights, minlength=shape[0] * shape[1]).reshape(shape)

        tables = {name: table(name) for name in COLUMNS[3:]}
        tokens = tables["tokens"].sum(axis=0)
        responses = tokens / (high - low + 1)
        reach = responses / responses[0] if len(low) else responses
        enough = (tokens >= MIN_TOKENS) & (reach >= MIN_REACH)
        tables = {name: values[:, enough] for name, values in tables.items()}
        position = (low[enough] + high[enough]) / 2
        found = _statistics({name: values.sum(axis=0) for name, values in tables.items()})
        return ByPosition(
            position=position,
            tokens=tokens[enough],
            mean=found["mean"],
            std=found["std"],
            clip_high=found["clip_high"],
            clip_low=found["clip_low"],
            clip_dual=found["clip_dual"],
            responses=responses[enough],
            reach=reach[enough],
            intervals=_intervals(tables, len(units), position),
        )


def _statistics(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Divide sums, [..., bins] each; NaN where there are no tokens."""
    tokens = np.where(sums["tokens"] > 0, sums["tokens"], np.nan)
    mean = sums["log_rho_sum"] / tokens
    unbiased = tokens / np.maximum(tokens - 1, 1)
    # Rounding can leave a variance of nothing just below zero.
    variance = np.maximum(sums["log_rho_sumsq"] / tokens - mean**2, 0) * unbiased
    found = {f"clip_{side}": sums[f"clipped_{side}"] / tokens for side in ("high", "low", "dual")}
    total = found["clip_high"] + found["clip_low"] + found["clip_dual"]
    return found | {"mean": mean, "std": np.sqrt(variance), "clip_total": total}


def _intervals(
    tables: Mapping[str, np.ndarray], units: int, position: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Resample batches; tables are [batches, bins], positions [bins]."""
    if units < MIN_BATCHES or not tables["tokens"].size:
        return {}
    (counts,) = draws(units, _RESAMPLES, seed=0)
    sums = {name: counts @ values for name, values in tables.items()}
    resampled = _statistics(sums)
    resampled["power"] = _power(position, sums["tokens"], resampled["std"])
    ends = {}
    for name in ("mean", "std", "clip_total", "power"):
        with warnings.catch_warnings():  # a bin that a resample has no token of
            warnings.simplefilter("ignore", RuntimeWarning)
            low, high = np.nanpercentile(resampled[name], PERCENTILES, axis=0)
        ends[name] = (low, high)
    return ends


def fit_spread(statistics: ByPosition) -> SpreadFit:
    """Fit std(log ρ_t) = σ̂√t, and the same with a free exponent, by least squares.

    Bins weigh as many tokens as they hold. The free exponent is fitted to the logarithms.

    Args:
        statistics: Pooled statistics, of at least one bin.

    Returns:
        Both fits.
    """
    root = np.sqrt(statistics.position)
    sigma = np.average(statistics.std * root, weights=statistics.tokens) / np.average(
        statistics.position, weights=statistics.tokens
    )
    power = _power(statistics.position, statistics.tokens, statistics.std)
    return SpreadFit(float(sigma), float(power))


def _power(position: np.ndarray, tokens: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Fit std = c·t^power to logarithms, weighted by tokens; positions [N], the others [..., N].

    Returns:
        The exponents, [...]; NaN where fewer than two spreads are above zero.
    """
    spread = std > 0
    weight = np.where(spread, tokens, 0.0)
    x, y = np.log(position), np.log(np.where(spread, std, 1.0))
    with np.errstate(invalid="ignore"):  # nothing over nothing
        x = x - (weight * x).sum(-1, keepdims=True) / weight.sum(-1, keepdims=True)
        power = (weight * x * y).sum(-1) / (weight * x**2).sum(-1)
    return np.where(spread.sum(-1) >= 2, power, np.nan)
