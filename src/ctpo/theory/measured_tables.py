"""The measured part as tables: one `Distance` for each pair of policies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ctpo.intervals import Interval
from ctpo.theory.measured import Quality
from ctpo.theory.measured_ratios import AtPosition
from ctpo.theory.tables import Cell, Table, with_interval

BATCHES = (8, 256, 8192)
"""Trajectories per update: the tiny recipe's, the paper's (32 prompts, 8 answers), and many."""
# Positions that are shown; all are in the JSON file.
_SHOWN = (1, 5, 10, 15, 20, 25, 30, 40, 50)


@dataclass(frozen=True)
class Distance:
    """What was measured between one old and one new policy.

    Attributes:
        after: Batches of training between them.
        trajectories: Of the old policy.
        reference_trajectories: Of the new policy; 0 without a reference.
        kl: Estimate of KL(π_old‖π_θ) per token, in nats.
        ratio_sizes: Effective sample size of each ratio's weights over their number.
        clipped: Share of policy tokens without gradient, of each preset with a window.
        qualities: Of every estimator.
        norm_square: |∇J|² by the reference.
        reference_variance: Trace of the covariance of the on-policy gradient.
        positions: Ratios by position.
        lengths: For each third of the trajectories by length: its longest, and the mean |g|² of
            each estimator over that of weight 1.
    """

    after: int
    trajectories: int
    reference_trajectories: int
    kl: float
    ratio_sizes: dict[str, float]
    clipped: dict[str, float]
    qualities: list[Quality]
    norm_square: Interval | None
    reference_variance: Interval | None
    positions: list[AtPosition]
    lengths: list[tuple[int, dict[str, float]]]


def measured_tables(distances: Sequence[Distance]) -> list[Table]:
    """Return all tables of the measured part."""
    return [
        _distance_table(distances),
        _gradient_table(distances),
        _by_estimator(
            "measured-variance",
            "Trace of the gradient's covariance over that of the full ratio, same trajectories",
            distances,
            lambda d, q: with_interval(*_ends(q.over_full)),
        ),
        _by_estimator(
            "measured-bias",
            "Bias by pairing with the full ratio, in standard deviations of one on-policy gradient",
            distances,
            lambda d, q: _scaled(q.bias_from_full, d),
        ),
        _by_estimator(
            "measured-share",
            "Share of Σ |g|² that the largest trajectory carries",
            distances,
            lambda d, q: f"{q.largest:.0%}",
        ),
        _error_table(distances),
        _position_table(distances, all_positions=False),
        _position_table(distances, all_positions=True),
        _length_table(distances),
    ]


def _distance_table(distances: Sequence[Distance]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for d in distances:
        gaps = [p.gap for p in d.positions]
        # The last position of the longest has ρ_t = ρ_H for most that reach it.
        rows.append(
            (
                d.after,
                d.kl,
                "" if d.norm_square is None else _scaled(d.norm_square, d),
                d.ratio_sizes["token"],
                d.ratio_sizes["cumulative"],
                d.ratio_sizes["full-sequence"],
                f"{sum(g.value > 0 for g in gaps)} of {len(gaps)}",
                f"{sum(g.low > 0 for g in gaps)} of {len(gaps)}",
                f"{sum(g.high < 0 for g in gaps)} of {len(gaps)}",
                max((p.largest for p in d.positions), default=0.0),
                *(f"{d.clipped[name]:.1%}" for name in d.clipped),
            )
        )
    clipped = distances[0].clipped
    return Table(
        "measured-distance",
        "Policies and ratios by distance",
        (
            "batches apart",
            "KL per token",
            "norm of ∇J",
            "ESS, token",
            "ESS, cumulative",
            "ESS, full",
            "Var ρ_t < Var ρ_H",
            "so by interval",
            "reverse by interval",
            "largest share of Σ ρ_H² at any t",
            *(f"without gradient, {name}" for name in clipped),
        ),
        tuple(rows),
    )


def _gradient_table(distances: Sequence[Distance]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for d in distances:
        for q in d.qualities:
            rows.append(
                (
                    q.name,
                    d.after,
                    with_interval(*(x / _unit(d) for x in _ends(q.variance))),
                    "" if q.bias_square is None else _scaled(q.bias_square, d),
                    _scaled(q.bias_from_full, d),
                    q.effective,
                    q.largest,
                )
            )
    return Table(
        "measured-gradient",
        "Gradients over all parameters, 95 % intervals over prompts; biases in standard deviations "
        "of one on-policy gradient",
        (
            "estimator",
            "batches apart",
            "variance / on-policy variance",
            "bias, on-policy reference",
            "bias, paired with the full ratio",
            "ESS of gradients",
            "largest share of Σ squared norm",
        ),
        tuple(rows),
    )


def _by_estimator(
    name: str,
    title: str,
    distances: Sequence[Distance],
    cell: Callable[[Distance, Quality], str],
) -> Table:
    """Return a table with a row for each estimator and a column for each distance."""
    rows = tuple(
        (q.name, *(cell(d, d.qualities[e]) for d in distances))
        for e, q in enumerate(distances[0].qualities)
    )
    columns = ("estimator", *(f"{d.after} apart" for d in distances))
    return Table(name, title, columns, rows)


def _error_table(distances: Sequence[Distance]) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (q.name, d.after, *(d.qualities[e].rmse(n) / _unit(d) ** 0.5 for n in BATCHES))
        for e, q in enumerate(distances[0].qualities)
        for d in distances
    ]
    return Table(
        "measured-error",
        "RMSE √(bias² + variance/n), bias by pairing with the full ratio, in standard deviations "
        "of one on-policy gradient",
        ("estimator", "batches apart", *(f"n = {n}" for n in BATCHES)),
        tuple(rows),
    )


def _position_table(distances: Sequence[Distance], *, all_positions: bool) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for d in distances:
        for p in d.positions:
            if all_positions or p.t in _SHOWN:
                rows.append(
                    (
                        d.after,
                        p.t,
                        p.count,
                        p.cumulative,
                        p.full,
                        with_interval(*_ends(p.gap)),
                        p.drift,
                        p.spread,
                        p.below,
                        p.below_free,
                        p.largest,
                    )
                )
    return Table(
        "measured-positions-all" if all_positions else "measured-positions",
        "Ratios by position, over the trajectories that reach it",
        (
            "batches apart",
            "t",
            "trajectories",
            "Var ρ_t",
            "Var ρ_H",
            "Var ρ_H - Var ρ_t",
            "mean log ρ_t",
            "std log ρ_t",
            "log ρ_t < -0.025√t",
            "M_t < -0.025√t",
            "largest share of Σ ρ_H²",
        ),
        tuple(rows),
    )


def _length_table(distances: Sequence[Distance]) -> Table:
    names = list(distances[0].lengths[0][1]) if distances[0].lengths else []
    rows: list[tuple[Cell, ...]] = [
        (d.after, f"≤ {longest}", *(means[name] for name in names))
        for d in distances
        for longest, means in d.lengths
    ]
    return Table(
        "measured-length",
        "Mean squared norm of the gradient over that of weight 1, by thirds of length",
        ("batches apart", "tokens", *names),
        tuple(rows),
    )


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def _unit(distance: Distance) -> float:
    """Return the variance of one on-policy gradient, or that of weight 1 without a reference."""
    if distance.reference_variance is not None:
        return distance.reference_variance.value
    return distance.qualities[0].variance.value


def _scaled(square: Interval, distance: Distance) -> str:
    """Return the root of a squared norm in the unit; one that may be zero is not resolved."""
    if square.value == square.low == square.high == 0:
        return "0"
    value, low, high = ((max(x, 0.0) / _unit(distance)) ** 0.5 for x in _ends(square))
    if square.low <= 0:
        return f"not resolved, < {high:.2g}"
    return with_interval(value, low, high)
