"""A verdict in words on what ratios do: match, drift, exponent, clipping and collapse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ctpo.intervals import Interval, draws
from ctpo.objective import CumulativeRatio, LogWindow, Objective
from ctpo.report.positions import Positions
from ctpo.report.signatures import Cause

# PPO's usual early stopping is at 0.01 to 0.02 nats a token; ten times that is another policy.
_FAR, _COLLAPSED = 0.01, 0.1
# Under this share of the tokens few weights decide.
_FEW = 0.1
_MIN_UNITS = 8
_SIDES = ("high", "low", "dual")
_SUMS = (
    *("tokens", "log_rho_sum", "log_rho_sumsq", "log_r_sum", "log_r_sumsq"),
    *("weight_sum", "weight_sumsq", "clipped_high", "clipped_low", "clipped_dual"),
)


@dataclass(frozen=True)
class Statement:
    """One sentence of the verdict.

    Attributes:
        about: `match`, `generator`, `drift`, `exponent`, `clipping` or `collapse`.
        state: Whether it is as it should be.
        words: The sentence, with its figures.
        advice: What to do; empty where nothing is to be done.
    """

    about: str
    state: Literal["good", "bad", "unknown"]
    words: str
    advice: str = ""


def measure(columns: Mapping[str, np.ndarray], resamples: int = 400) -> dict[str, Interval]:
    """Return what the verdict rests on, with 95 % intervals over units.

    Args:
        columns: Sums by unit, in the column `batch`, and by position bin, as `positions.parquet`
            has them. Units are batches of a run, or responses or blocks of them.
        resamples: Of the bootstrap over units.

    Returns:
        `kl`: -mean of log r, an estimate of KL(π_old‖π_θ) in nats a token. `square`: half the mean
        of (log r)², another. `ess`: effective sample size of the weights as a share of the tokens.
        `high`, `low`, `dual`: shares of clipped tokens. `sigma` and `power` of std(log ρ_t) = σ̂√t
        and c·t^power. Ends are NaN for fewer than eight units, a power without spreads is.
    """
    _, unit = np.unique(columns["batch"], return_inverse=True)
    lows, bin_of_row = np.unique(columns["position_low"], return_inverse=True)
    tables = {name: np.zeros((unit.max() + 1, len(lows))) for name in _SUMS}
    for name, table in tables.items():
        np.add.at(table, (unit, bin_of_row), columns[name])
    pooled = Positions(columns).pool()
    middle = np.zeros(len(lows))
    middle[bin_of_row] = (columns["position_low"] + columns["position_high"]) / 2
    fitted = np.isin(middle, pooled.position[pooled.std > 0])

    def figures(sums: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        total = {name: table.sum(axis=1) for name, table in sums.items()}
        count = np.maximum(total["tokens"], 1)
        found = {side: total[f"clipped_{side}"] / count for side in _SIDES}
        found["kl"] = -total["log_r_sum"] / count
        found["square"] = total["log_r_sumsq"] / count / 2
        found["ess"] = total["weight_sum"] ** 2 / (count * (total["weight_sumsq"] + 1e-300))
        n = np.maximum(sums["tokens"][:, fitted], 2)
        variance = sums["log_rho_sumsq"][:, fitted] - sums["log_rho_sum"][:, fitted] ** 2 / n
        std = np.sqrt(np.maximum(variance / (n - 1), 1e-30))
        x, y = np.broadcast_to(np.log(middle[fitted]), std.shape), np.log(std)
        weight = n / n.sum(axis=1, keepdims=True)
        x = x - (weight * x).sum(axis=1, keepdims=True)
        found["sigma"] = found["power"] = np.full(len(n), np.nan)
        if fitted.any():
            root = np.sqrt(middle[fitted])
            found["sigma"] = (n * std * root).sum(axis=1) / (n * root**2).sum(axis=1)
        if fitted.sum() > 1:
            found["power"] = (weight * x * y).sum(axis=1) / (weight * x**2).sum(axis=1)
        return found

    whole = figures({name: table.sum(axis=0)[None] for name, table in tables.items()})
    units = int(unit.max()) + 1
    if units < _MIN_UNITS:
        return {
            name: Interval(float(value[0]), math.nan, math.nan) for name, value in whole.items()
        }
    parts = [
        figures({name: counts @ table for name, table in tables.items()})
        for counts in draws(units, resamples, seed=0)
    ]
    return {
        name: Interval(math.nan, math.nan, math.nan)
        if math.isnan(value[0])
        else Interval.of(float(value[0]), np.concatenate([part[name] for part in parts]))
        for name, value in whole.items()
    }


def verdict(
    measured: Mapping[str, Interval],
    cause: Cause | None,
    objective: Objective | None,
    by_batch: Mapping[int, float] | None = None,
) -> list[Statement]:
    """Return the verdict, what needs mending first.

    Args:
        measured: What `measure` found.
        cause: Why log-probs differ; None where there are none to compare.
        objective: Whose clip rates these are; None if unknown.
        by_batch: KL in nats a token by batch of a run; None for other logs.
    """
    said = [] if cause is None else [match(cause)]
    if cause is None or cause.name != "none":
        said += [_collapse(measured, by_batch), _drift(measured, objective), _exponent(measured)]
        said.append(_clipping(measured))
    if cause is not None and cause.is_fault:  # first things first
        said = [said[0], *(replace(one, advice="") for one in said[1:])]
    order = {"bad": 0, "unknown": 1, "good": 2}
    # What is wrong with the log-probs is wrong with all that is made of them.
    return sorted(said, key=lambda one: (one.about != "match", order[one.state]))


def shown(interval: Interval, form: str = ".2g") -> str:
    """Return a number and its interval as text."""
    if math.isnan(interval.low):
        return f"{interval.value:{form}}"
    return f"{interval.value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def match(cause: Cause, about: str = "match") -> Statement:
    """Return what a cause says about two log-probs."""
    others = f"; {' or '.join(cause.also)} would look the same" if cause.also else ""
    if cause.is_fault:
        return Statement(
            about, "bad", f"MISMATCH, likely {cause.name}: {cause.words}{others}", cause.advice
        )
    state: Literal["good", "unknown"] = "unknown" if cause.advice else "good"
    return Statement(about, state, f"{cause.words}{others}", cause.advice)


def _collapse(measured: Mapping[str, Interval], by_batch: Mapping[int, float] | None) -> Statement:
    kl, square, ess = measured["kl"], measured["square"], measured["ess"]
    moved = kl if kl.value > square.value else square
    worst, where = moved.value, ""
    if by_batch:
        batch = max(by_batch, key=lambda number: by_batch[number])
        if by_batch[batch] > 2 * worst:
            worst, where = by_batch[batch], f" (largest in batch {batch}: {by_batch[batch]:.2g})"
    size = f"KL {shown(moved)} nats a token{where}, effective sample size {shown(ess, '.1%')}"
    if worst > _COLLAPSED or (worst > _FAR and ess.value < _FEW):
        return Statement(
            "collapse",
            "bad",
            f"COLLAPSE, whatever the clip rates say: the policy is another one, {size}",
            "go back to a checkpoint before it; fewer updates a batch, a lower learning rate or a "
            "KL term. If no update was made, the two sides are not of the same text or weights",
        )
    if worst > _FAR:
        advice = "take fewer updates a batch or a lower learning rate if it grows"
        return Statement("collapse", "unknown", f"far from the old policy: {size}", advice)
    few = "; few weights decide, as on long answers" if ess.value < _FEW else ""
    return Statement("collapse", "good", f"no collapse: {size}{few}")


def _drift(measured: Mapping[str, Interval], objective: Objective | None) -> Statement:
    kl = measured["kl"]
    sign = 1 if kl.value >= 0 else -1
    low, high = sorted((sign * kl.low, sign * kl.high))
    way = "falls" if sign > 0 else "rises"
    words = f"log ρ {way} by {shown(Interval(abs(kl.value), low, high))} nats a token"
    if kl.low <= 0 <= kl.high:
        return Statement("drift", "good", f"{words}, which may be none")
    window = None if objective is None else objective.window
    product = objective is not None and isinstance(objective.ratio, CumulativeRatio)
    if product and kl.value > 0 and isinstance(window, LogWindow) and window.power < 1:
        met = max(1.0, (window.eps_low / kl.value) ** (1 / (1 - window.power)))
        words += f"; its mean meets the window's lower edge at t ≈ {met:,.0f}"
    return Statement("drift", "good", words)


def _exponent(measured: Mapping[str, Interval]) -> Statement:
    power, sigma = measured["power"], measured["sigma"]
    if math.isnan(power.value):
        words = "the exponent of the spread needs at least two positions with 32 tokens each"
        return Statement("exponent", "unknown", words)
    words = f"std(log ρ) grows as t^{shown(power, '.2f')}, {sigma.value:.3g}·√t at best"
    if math.isnan(power.low) or power.low <= 0.5 <= power.high:
        return Statement("exponent", "good", words)
    if power.low < 0.5:
        return Statement("exponent", "good", f"{words}: slower than √t, late tokens clip less")
    advice = f"a window with power={min(power.value, 1):.2g} clips as much at all positions"
    return Statement(
        "exponent", "unknown", f"{words}: faster than √t, late tokens clip more", advice
    )


def _clipping(measured: Mapping[str, Interval]) -> Statement:
    parts = ", ".join(f"{side} {shown(measured[side], '.2%')}" for side in _SIDES)
    if sum(measured[side].value for side in _SIDES) > 0.5:
        advice = "widen the window or take fewer updates a batch"
        return Statement("clipping", "bad", f"most tokens give no gradient: {parts}", advice)
    return Statement("clipping", "good", f"clipped {parts} of the tokens")
