"""Logged rollouts of any trainer: ratios and clipping by position, what to make of them, figures.

A Parquet file (or a directory of them) with one response a row:

| column | content |
|---|---|
| `logprobs` | list of log π_θ(a_t) in nats, after some updates |
| `old_logprobs` | list of log π_old(a_t) in nats, before the first |
| `mask` | list, true or 1 on the policy's tokens |
| `advantages` | a number, or a list with one per token |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ctpo.objective import Calibration, Objective, OnPolicyReport, PositionStatistics, calibrate
from ctpo.report import figures
from ctpo.report.gallery import save
from ctpo.report.positions import Positions as PositionTable
from ctpo.report.positions import SpreadFit, fit_spread
from ctpo.report.reading import ReportError, Run

COLUMNS = ("logprobs", "old_logprobs", "mask", "advantages")

_ROWS_AT_ONCE = 256
# Enough for a quantile to three digits; the first so many tokens are taken.
_CALIBRATION_TOKENS = 4_000_000


@dataclass(frozen=True)
class Analysis:
    """What logged rollouts say.

    Attributes:
        statistics: Sums by position and over sequences.
        objective: Whose window the clip rates are about.
        spread: Fit of std(log ρ_t) = σ̂√t, and with a free exponent; None where too few tokens
            have a position in common.
        calibration: A window that clips as much as was wanted, or why there is none.
        on_policy: Whether old and new log-probs agree.
    """

    statistics: PositionStatistics
    objective: Objective
    spread: SpreadFit | None
    calibration: Calibration | str
    on_policy: OnPolicyReport

    def table(self, rows: int = 14) -> list[dict[str, float]]:
        """Return position bins, evenly chosen, with what is of interest about each."""
        return rows_by_position(self.statistics.to_columns(), rows)

    def draw(self, folder: Path) -> list[Path]:
        """Draw clip rate, spread and drift by position.

        Args:
            folder: Where to; made if need be.

        Returns:
            The files.
        """
        return draw_by_position(_positions(self.statistics), folder)


def analyze(
    file: Path | str,
    objective: Objective,
    *,
    names: Mapping[str, str] | None = None,
    clip_rate: float = 0.05,
    power: float | None = 0.5,
) -> Analysis:
    """Read logged rollouts and say what their ratios do.

    Args:
        file: A Parquet file or a directory of them.
        objective: Whose window to count clips for.
        names: What columns are called there, by the names they have here.
        clip_rate: Wanted share of clipped tokens on each side, for the calibration.
        power: Exponent of the calibrated window; None fits it.

    Raises:
        ReportError: The file is missing, lacks a column, has no rows, or a row does not fit.
    """
    statistics = PositionStatistics.zeros()
    kept: dict[str, list[torch.Tensor]] = {name: [] for name in COLUMNS}
    tokens = 0
    for rows in _batches(Path(file), {name: name for name in COLUMNS} | dict(names or {})):
        try:
            out = objective(
                rows["logprobs"], rows["old_logprobs"], rows["advantages"], rows["mask"], check=True
            )
        except (TypeError, ValueError) as error:
            raise ReportError(f"{file}: {error}") from error
        statistics = statistics + out.statistics
        if tokens < _CALIBRATION_TOKENS:
            tokens += sum(len(piece) for piece in rows["logprobs"])
            for name in COLUMNS:
                kept[name] += rows[name]
    if not int(statistics.tokens.sum()):
        raise ReportError(f"{file} has no policy tokens: every mask is 0")
    calibration: Calibration | str
    try:
        calibration = calibrate(
            kept["logprobs"],
            kept["old_logprobs"],
            kept["advantages"],
            kept["mask"],
            clip_rate=clip_rate,
            power=power,
        )
    except ValueError as error:
        calibration = str(error)
    pooled = _positions(statistics).pool()
    spread = fit_spread(pooled) if len(pooled.position) else None
    return Analysis(statistics, objective, spread, calibration, statistics.on_policy_check())


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


def draw_by_position(positions: PositionTable, folder: Path) -> list[Path]:
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


def _positions(statistics: PositionStatistics) -> PositionTable:
    columns = {name: np.array(values) for name, values in statistics.to_columns().items()}
    return PositionTable({"batch": np.ones(len(columns["tokens"]), dtype=int), **columns})


def _batches(file: Path, names: Mapping[str, str]) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Yield lists of tensors by our names, some hundred rows at a time."""
    unknown = set(names) - set(COLUMNS)
    if unknown:
        raise ReportError(
            f"there is no column {', '.join(sorted(unknown))} to rename; there are "
            f"{', '.join(COLUMNS)}"
        )
    if not file.exists():
        raise ReportError(f"there is no file {file}")
    try:
        dataset = pq.ParquetDataset(file)
    except (pa.ArrowException, OSError) as error:
        raise ReportError(f"{file} cannot be read as Parquet: {error}") from error
    present = dataset.schema.names
    missing = [name for name in names.values() if name not in present]
    if missing:
        raise ReportError(
            f"{file} lacks the column {', '.join(missing)}; it has {', '.join(present)}. If one of "
            "these is meant, say so with --column, e.g. --column logprobs=new_logprobs"
        )
    number = 0
    for fragment in dataset.fragments:
        wanted = list(dict.fromkeys(names.values()))
        for batch in fragment.to_batches(columns=wanted, batch_size=_ROWS_AT_ONCE):
            if not batch.num_rows:
                continue
            rows = {ours: batch.column(theirs).to_pylist() for ours, theirs in names.items()}
            yield _tensors(file, rows, number)
            number += batch.num_rows
    if not number:
        raise ReportError(f"{file} has no rows")


def _tensors(file: Path, rows: dict[str, list[Any]], first: int) -> dict[str, list[torch.Tensor]]:
    results: dict[str, list[torch.Tensor]] = {name: [] for name in COLUMNS}
    for i, values in enumerate(zip(*(rows[name] for name in COLUMNS), strict=True)):
        row = dict(zip(COLUMNS, values, strict=True))
        length = len(row["logprobs"]) if isinstance(row["logprobs"], list) else None
        if isinstance(row["advantages"], int | float) and length is not None:
            row["advantages"] = [float(row["advantages"])] * length
        for name, value in row.items():
            if not isinstance(value, list) or len(value) != length or None in value:
                what = f"{len(value)} values" if isinstance(value, list) else repr(value)
                raise ReportError(
                    f"{file}, row {first + i}: {name} is {what}"
                    + (", some of them null" if isinstance(value, list) and None in value else "")
                    + f"; it must be a list of {length if length is not None else 'numbers, one'}"
                    + (" numbers, like logprobs" if length is not None else " per token")
                )
            results[name].append(torch.tensor(value, dtype=torch.float64))
    return results
