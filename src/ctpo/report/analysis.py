"""What ratios do by position, with a verdict: of logged rollouts, or of statistics by position."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ctpo.intervals import Interval
from ctpo.objective import Calibration, Objective, PositionStatistics
from ctpo.report import figures
from ctpo.report.gallery import save
from ctpo.report.positions import Positions, SpreadFit, fit_spread
from ctpo.report.reading import Run
from ctpo.report.signatures import Cause
from ctpo.report.verdict import Statement

# Columns with anything else add up.
_POOLED_BY = {
    "position_low": np.minimum,
    "position_high": np.maximum,
    "log_rho_min": np.minimum,
    "log_rho_max": np.maximum,
    "log_r_min": np.minimum,
    "log_r_max": np.maximum,
}


HEADINGS = ("t", "tokens", "mean", "std", "min", "max", "high", "low", "dual", "ess")
MARKS = {"good": "✓", "bad": "✗", "unknown": "?"}


@dataclass(frozen=True)
class Analysis:
    """What ratios do and what to make of it.

    Attributes:
        title: What was looked at, in words.
        positions: Sums by unit (batch, response or block of responses) and position bin.
        measured: Figures with their intervals, see `verdict.measure`.
        verdict: What to make of them.
        has_sides: Whether advantages are known, without which nothing is clipped.
        cause: Why log-probs differ; None where there are none to compare.
        objective: Whose window the clip rates are about; None if unknown.
        statistics: Sums by position and over sequences; None where there are no log-probs.
        calibration: A window that clips as much as was wanted, or why there is none.
    """

    title: str
    positions: Positions
    measured: Mapping[str, Interval]
    verdict: Sequence[Statement]
    has_sides: bool = True
    cause: Cause | None = None
    objective: Objective | None = None
    statistics: PositionStatistics | None = None
    calibration: Calibration | str | None = None

    @property
    def agrees(self) -> bool:
        """Whether new and old log-probs are the same."""
        return self.cause is not None and self.cause.name == "none"

    @property
    def window(self) -> str:
        """The suggested window in words; empty where none is in question."""
        made = self.calibration
        if made is None or isinstance(made, str):
            return "" if made is None else f"none suggested: {made}"
        window = made.window
        return (
            f"for ctpo (cumulative ratio): eps_low={window.eps_low:.4g} "
            f"eps_high={window.eps_high:.4g} dual_clip={window.dual_clip:.4g} "
            f"power={window.power:.3g} clips {made.clip_high:.1%} of A>0 above, "
            f"{made.clip_low:.1%} and {made.clip_dual:.1%} of A<0 below and above"
        )

    @property
    def spread(self) -> SpreadFit | None:
        """Fit of std(log ρ_t) = σ̂√t; None where too few tokens have a position in common."""
        pooled = self.positions.pool()
        return fit_spread(pooled) if len(pooled.position) else None

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """Sums and extremes by position bin, all units pooled."""
        rows = self.positions.columns
        lows, bin_of_row = np.unique(rows["position_low"], return_inverse=True)
        order = np.argsort(bin_of_row, kind="stable")
        starts = np.searchsorted(bin_of_row[order], np.arange(len(lows)))
        return {
            name: _POOLED_BY.get(name, np.add).reduceat(column[order], starts)
            for name, column in rows.items()
            if name != "batch"
        }

    def table(self, rows: int = 14) -> list[dict[str, float]]:
        """Return position bins, evenly chosen, with what is of interest about each."""
        return rows_by_position(self.columns, rows)

    def lines(self) -> list[list[str]]:
        """Return the table as text: t, tokens, mean, std, min, max, high, low, dual, ess."""
        return [
            [
                f"{row['first']:.0f}" + f"–{row['last']:.0f}" * (row["first"] != row["last"]),
                f"{row['tokens']:.0f}",
                *(f"{row[name]:z.3f}" for name in ("mean", "std")),
                *(f"{row[name]:z.2f}" for name in ("min", "max")),
                *(
                    f"{row[side]:.1%}" if self.has_sides else "–"
                    for side in ("high", "low", "dual")
                ),
                f"{row['ess']:.0%}",
            ]
            for row in self.table()
        ]

    def draw(self, folder: Path) -> list[Path]:
        """Draw clip rate, spread and drift by position.

        Args:
            folder: Where to; made if need be.

        Returns:
            The files.
        """
        positions = self.positions
        if self.statistics is not None:  # blocks of responses are not the course of a training
            columns = {name: np.array(c) for name, c in self.statistics.to_columns().items()}
            positions = Positions({"batch": np.ones(len(columns["tokens"]), dtype=int), **columns})
        return draw_by_position(positions, folder)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON has it; what is not finite is null."""
        found: dict[str, Any] = {
            "title": self.title,
            "verdict": [asdict(statement) for statement in self.verdict],
            "cause": None if self.cause is None else asdict(self.cause),
            "measured": {name: asdict(interval) for name, interval in self.measured.items()},
            "positions": self.table(1000),
        }
        if isinstance(self.calibration, Calibration):
            found["window"] = asdict(self.calibration) | {"of": "ctpo"}
        cleaned: dict[str, Any] = _finite(found)
        return cleaned


def _finite(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def rows_by_position(
    columns: Mapping[str, Sequence[float] | np.ndarray], rows: int
) -> list[dict[str, float]]:
    """Return position bins, evenly chosen, with what is of interest about each.

    Args:
        columns: Sums and extremes by position bin, as `PositionStatistics.to_columns` has them.
        rows: At most so many bins.
    """
    low = np.array(columns["position_low"])
    chosen = np.unique(np.searchsorted(low, np.geomspace(1, low[-1], rows).round(), "left"))
    results = []
    for i in chosen:
        one = {name: float(column[i]) for name, column in columns.items()}
        n = one["tokens"]
        mean = one["log_rho_sum"] / n
        variance = max(one["log_rho_sumsq"] / n - mean**2, 0.0) * n / max(n - 1, 1)
        squares = one["weight_sumsq"]
        results.append(
            {
                "first": one["position_low"],
                "last": one["position_high"],
                "tokens": n,
                "mean": mean,
                "std": variance**0.5,
                "min": one["log_rho_min"],
                "max": one["log_rho_max"],
                "high": one["clipped_high"] / n,
                "low": one["clipped_low"] / n,
                "dual": one["clipped_dual"] / n,
                "ess": one["weight_sum"] ** 2 / squares / n if squares else float("nan"),
            }
        )
    return results


def draw_by_position(positions: Positions, folder: Path) -> list[Path]:
    """Draw clip rate, spread and drift by position.

    Args:
        positions: Statistics by batch and position bin.
        folder: Where to; made if need be.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder, "", [], {}, positions, None, None)
    drawn = []
    for name, draw in (
        ("clip-rate", figures.clip_rate),
        ("ratio-spread", figures.ratio_spread),
        ("ratio-drift", figures.ratio_drift),
    ):
        figure = draw(run)
        assert figure is not None, "there are positions"
        drawn.append(save(figure, folder, name)[0])
    return drawn
