"""Statistics by position on their own: what an engine writes without the log-probs they are of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ctpo.objective import PositionStatistics
from ctpo.report.analysis import draw_by_position, rows_by_position
from ctpo.report.positions import Positions, SpreadFit, fit_spread
from ctpo.report.reading import ReportError, read_table

# Columns with anything else add up.
_POOLED_BY = {
    "position_low": np.minimum,
    "position_high": np.maximum,
    "log_rho_min": np.minimum,
    "log_rho_max": np.maximum,
    "log_r_min": np.minimum,
    "log_r_max": np.maximum,
}


@dataclass(frozen=True)
class PositionAnalysis:
    """What statistics by position say, all batches pooled.

    Attributes:
        positions: The statistics by batch and position bin.
        columns: Sums and extremes by position bin, as `PositionStatistics.to_columns` has them.
        spread: Fit of std(log ρ_t) = σ̂√t, and with a free exponent; None where too few tokens
            have a position in common.
    """

    positions: Positions
    columns: Mapping[str, np.ndarray]
    spread: SpreadFit | None

    def table(self, rows: int = 14) -> list[dict[str, float]]:
        """Return position bins, evenly chosen, with what is of interest about each."""
        return rows_by_position(self.columns, rows)

    def summary(self) -> dict[str, float]:
        """Return what `PositionStatistics.summary` says of clipping and of the sample."""
        total = {name: float(column.sum()) for name, column in self.columns.items()}
        found = {
            f"clip/{side}": total[f"clipped_{side}"] / total["tokens"]
            for side in ("high", "low", "dual")
        }
        squares = total["tokens"] * total["weight_sumsq"]
        return found | {"ess": total["weight_sum"] ** 2 / (squares or 1.0)}

    def draw(self, folder: Path) -> list[Path]:
        """Draw clip rate, spread and drift by position.

        Args:
            folder: Where to; made if need be.

        Returns:
            The files.
        """
        return draw_by_position(self.positions, folder)


def holds_positions(file: Path) -> bool:
    """Return whether a Parquet file, or a directory of them, holds statistics by position.

    Raises:
        ReportError: It is no Parquet file.
    """
    table = read_table(file, ["position_low"])
    return table is not None and table.column_names == ["position_low"]


def analyze_positions(file: Path) -> PositionAnalysis:
    """Read statistics by position and pool their batches.

    Args:
        file: A Parquet file or a directory of them, as `RunDirectory.add_positions` and the
            engines write them.

    Raises:
        ReportError: The file is missing, lacks a column or has no rows.
    """
    names = ["batch", *PositionStatistics.zeros().to_columns()]
    table = read_table(file, names)
    if table is None or not len(table):
        raise ReportError(f"{file} has no statistics by position")
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise ReportError(f"{file} lacks the column {missing[0]}")
    rows = {name: table[name].to_numpy() for name in names}
    lows, bin_of_row = np.unique(rows["position_low"], return_inverse=True)
    order = np.argsort(bin_of_row, kind="stable")
    starts = np.searchsorted(bin_of_row[order], np.arange(len(lows)))
    columns = {
        name: _POOLED_BY.get(name, np.add).reduceat(rows[name][order], starts) for name in names[1:]
    }
    positions = Positions(rows)
    pooled = positions.pool()
    spread = fit_spread(pooled) if len(pooled.position) else None
    return PositionAnalysis(positions, columns, spread)
