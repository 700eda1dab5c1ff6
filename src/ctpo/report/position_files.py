"""Statistics by position on their own: what an engine writes without the log-probs they are of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ctpo.objective import PositionStatistics
from ctpo.report.analysis import Analysis
from ctpo.report.log_analysis import analyze
from ctpo.report.positions import Positions
from ctpo.report.reading import ReportError, read_table
from ctpo.report.verdict import measure, verdict


def holds_positions(file: Path) -> bool:
    """Return whether a Parquet file, or a directory of them, holds statistics by position.

    Raises:
        ReportError: A Parquet file cannot be read.
    """
    files = [file] if file.is_file() else sorted(file.glob("*.parquet"))
    if not files or not files[0].is_file() or files[0].suffix != ".parquet":
        return False
    table = read_table(files[0], ["position_low"])
    return table is not None and table.column_names == ["position_low"]


def analyze_positions(file: Path) -> Analysis:
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
    columns = {name: table[name].to_numpy() for name in names}
    measured = measure(columns)
    batches, of_row = np.unique(columns["batch"], return_inverse=True)
    squares, tokens = (
        np.bincount(of_row, weights=columns[name]) for name in ("log_r_sumsq", "tokens")
    )
    kl = dict(zip(batches.tolist(), (squares / tokens / 2).tolist(), strict=True))
    return Analysis(
        title=f"{len(batches)} batches, {int(tokens.sum())} policy tokens",
        positions=Positions(columns),
        measured=measured,
        verdict=verdict(measured, None, None, kl),
    )


def analyze_run(path: Path) -> list[Analysis]:
    """Read what a run left: how generator and trainer agree, and ratios over its updates.

    Args:
        path: A run directory, or its statistics by position.

    Raises:
        ReportError: Neither `trajectories.parquet` nor `positions.parquet` can be analysed.
    """
    if not (path / "recipe.toml").is_file():
        return [analyze_positions(path)]
    analyses = []
    trajectories = path / "trajectories.parquet"
    table = read_table(trajectories, ["old_logprobs"])
    # Where every update is on-policy, the trainer computes none.
    if table is not None and len(table) and not table["old_logprobs"].null_count:
        analyses.append(analyze(trajectories))
    if holds_positions(path / "positions.parquet"):
        analyses.append(analyze_positions(path / "positions.parquet"))
    if not analyses:
        raise ReportError(
            f"{path} has neither statistics by position nor old log-probs in trajectories.parquet: "
            "there is nothing to compare before the first updates, nor where all are on-policy"
        )
    return analyses
