"""Results as data: a row for each run and evaluation, read from the run directories."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ctpo.report.reading import Evaluation, Run, read_run
from ctpo.studies.cells import Trial
from ctpo.studies.study import Levels, Study, StudyError
from ctpo.training.run_directory import RunDirectory

_TEXT = ("study", "digest", "phase", "method", "warm_start", "state", "error", "evaluation")
_WHOLE = ("seed", "batch", "updates", "answers", "problems")
# Metrics of the batch before the evaluation, by our names.
_METRICS = {
    "reward": "reward/mean",
    "kl": "kl/k1",
    "ess": "ess",
    "clip_high": "clip/high",
    "clip_low": "clip/low",
    "clip_dual": "clip/dual",
}
_REAL = ("sampled", "sampled_low", "sampled_high", "greedy", *_METRICS, "seconds")
_LISTS = ("position", "clip_by_position")
_VERSIONS = ("ctpo", "torch", "transformers", "trl")


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
        phase: `tuning` or `test`.
        method: The method.
        levels: The level of each axis, of those that were tuned too.
        seed: The run's.
        warm_start: Digest of what it began with.
        failed: Whether it ended with an error; it then has no outcome.
        error: The error.
        rows: Its evaluations, by batch.
    """

    phase: str
    method: str
    levels: Levels
    seed: int
    warm_start: str | None
    failed: bool
    error: str | None
    rows: Sequence[dict[str, Any]]

    def outcome(self, study: Study) -> float | None:
        """Return the primary outcome, None of a run that failed."""
        if self.failed:
            return None
        if study.outcome == "final":
            return float(self.rows[-1]["sampled"])
        later = [row["sampled"] for row in self.rows if row["batch"] > 0]
        return math.fsum(later) / len(later)

    def collapsed(self, study: Study) -> bool:
        """Return whether the run has collapsed; see `Collapse`."""
        limits, first, last = study.collapse, self.rows[0], self.rows[-1]
        # Written so that what is not a number is out of bounds.
        moved_off = not (_number(last["kl"]) <= limits.kl)
        few_count = not (_number(last["ess"]) >= limits.ess)
        return last["sampled"] < limits.accuracy * first["sampled"] or (moved_off and few_count)


def collect(directory: Path, study: Study) -> pa.Table:
    """Read the runs of a study that are done or failed.

    Returns:
        One row per run and evaluation, with `axis.NAME` for each axis; a run that failed before its
        first evaluation has one row without any.

    Raises:
        ReportError: A run's files cannot be read.
    """
    rows = []
    for file in sorted((directory / "cells").glob("*/cell.json")):
        rows += rows_of(file.parent, study)
    tuned = [] if study.tuning is None else list(study.tuning.axes)
    axes = [f"axis.{axis}" for axis in (*study.axes, *tuned)]
    schema = pa.schema(
        [(name, pa.string()) for name in (*_TEXT, *axes, *_VERSIONS, "python")]
        + [(name, pa.int64()) for name in _WHOLE]
        + [(name, pa.float64()) for name in _REAL]
        + [(name, pa.list_(pa.float32())) for name in _LISTS]
    )
    return pa.Table.from_pylist(rows, schema=schema)


def rows_of(place: Path, study: Study) -> list[dict[str, Any]]:
    """Read one cell; no rows where it is not done yet."""
    cell = json.loads((place / "cell.json").read_text())
    failure = place / "failed.json"
    begun = (place / "run" / "recipe.toml").is_file()
    done = begun and RunDirectory.open(place / "run").finished
    if not done and not failure.is_file():
        return []
    levels = cell["levels"] | cell["tuned"]
    common = {
        "study": study.name,
        "digest": cell["study"],
        **{name: cell[name] for name in ("phase", "method", "seed", "warm_start")},
        **{f"axis.{axis}": level for axis, level in levels.items()},
        "state": "done" if done else "failed",
        "error": None if done else json.loads(failure.read_text())["error"],
    }
    # A run that failed in its first batch has no metrics, which a report cannot do without.
    if not begun or not (place / "run" / "metrics.jsonl").is_file():
        return [common]
    run = read_run(place / "run")
    recipe = RunDirectory.open(run.path).recipe
    packages = (run.environment or {}).get("packages", {})
    common |= {name: packages.get(name) for name in _VERSIONS}
    common |= {
        "python": (run.environment or {}).get("python"),
        "seconds": sum((run.timing or {}).values()),
    }
    rows = [
        common
        | _evaluation_row(run, evaluation)
        | {
            "updates": evaluation.batch * recipe.optimization.updates_per_batch,
            "answers": evaluation.batch * recipe.responses_per_batch,
        }
        for evaluation in run.evaluations.values()
    ]
    if done and run.positions is not None:
        pooled = run.positions.pool()
        rows[-1] |= {
            "position": pooled.position.tolist(),
            "clip_by_position": pooled.clip_total.tolist(),
        }
    return rows or [common]


def _evaluation_row(run: Run, evaluation: Evaluation) -> dict[str, Any]:
    sampled = evaluation.decodings["sampled"].overall
    greedy = evaluation.decodings.get("greedy")
    batch: dict[str, Any] = next(
        (line for line in run.metrics if line["batch"] == evaluation.batch), {}
    )
    return {
        "evaluation": evaluation.name,
        "batch": evaluation.batch,
        "sampled": sampled.mean,
        "sampled_low": sampled.low,
        "sampled_high": sampled.high,
        "greedy": None if greedy is None else greedy.overall.mean,
        "problems": sampled.problems,
        **{ours: batch.get(theirs) for ours, theirs in _METRICS.items()},
    }


def results(rows: Iterable[dict[str, Any]]) -> list[Result]:
    """Return the runs that rows are of.

    Args:
        rows: As in the table that `collect` returns.
    """
    runs: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        levels = [(name, level) for name, level in row.items() if name.startswith("axis.")]
        key = (row["phase"], row["method"], *levels, row["seed"])
        runs.setdefault(key, []).append(row)
    return [
        Result(
            phase=rows[0]["phase"],
            method=rows[0]["method"],
            levels={
                name.removeprefix("axis."): level
                for name, level in rows[0].items()
                if name.startswith("axis.") and level is not None
            },
            seed=rows[0]["seed"],
            warm_start=rows[0]["warm_start"],
            failed=rows[0]["state"] == "failed",
            error=rows[0]["error"],
            rows=sorted((r for r in rows if r.get("evaluation")), key=lambda row: row["batch"]),
        )
        for rows in runs.values()
    ]


def trials(study: Study, runs: Sequence[Result]) -> list[Trial]:
    """Return the runs of the tuning with their outcomes."""
    return [
        Trial(run.method, run.levels, run.outcome(study)) for run in runs if run.phase == "tuning"
    ]


def read_results(file: Path) -> list[Result]:
    """Read what `ctpo study report` wrote.

    Raises:
        StudyError: It cannot be read.
    """
    try:
        return results(pq.read_table(file).to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise StudyError(f"{file} cannot be read: {error}") from error


def _number(value: float | None) -> float:
    return math.nan if value is None else value
