"""A run directory, read. The report knows these files and nothing of the code that wrote them."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ctpo.disk import is_locked
from ctpo.report.positions import COLUMNS, Positions


class ReportError(Exception):
    """A run directory lacks a file that is needed, or holds one that cannot be read."""


@dataclass(frozen=True)
class Score:
    """A mean over problems with its interval.

    Attributes:
        mean: Share of right answers, averaged over problems, 0 to 1; NaN if nothing was graded.
        low: Lower end of the 95 % interval; NaN if there is none.
        high: Upper end of it.
        standard_error: Standard error of the mean, clustered by problem.
        problems: Problems the mean is over.
        answers: Answers given.
        unknown: Answers the grader could not judge; they are not in the mean.
    """

    mean: float
    low: float
    high: float
    standard_error: float
    problems: int
    answers: int
    unknown: int

    @property
    def percent(self) -> str:
        """The mean as text."""
        return "–" if math.isnan(self.mean) else f"{100 * self.mean:.1f} %"

    @property
    def interval(self) -> str:
        """The interval as text, in percent; empty if there is none."""
        return "" if math.isnan(self.low) else f"{100 * self.low:.1f} – {100 * self.high:.1f}"

    def __str__(self) -> str:
        return f"{self.percent} ({self.interval})" if self.interval else self.percent


@dataclass(frozen=True)
class Scores:
    """One way of decoding, scored: over all problems and by their source."""

    samples_per_problem: int
    overall: Score
    by_source: Mapping[str, Score]


@dataclass(frozen=True)
class Evaluation:
    """The model after `batch` rollout batches.

    Attributes:
        name: `start`, `final` or `batch-0020`.
        batch: Rollout batches before it.
        decodings: Scores by decoding: `sampled` and `greedy`.
        by_problem: Mean score of sampled answers by problem; empty where it was not recorded.
    """

    name: str
    batch: int
    decodings: Mapping[str, Scores]
    by_problem: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """What a run directory holds. What is optional and absent is None or empty.

    Attributes:
        path: The directory.
        recipe: The text of `recipe.toml`.
        metrics: One mapping per rollout batch, in order.
        evaluations: By name (`start`, `final`, `batch-0020`), in the order of their batches.
        positions: Statistics by token position.
        environment: Versions and machine.
        timing: Seconds by phase.
        changes: What the recipe says otherwise than the shipped one of its name, as `changes.json`.
        state: `running`, `done` (with a final evaluation) or `stopped`.
    """

    path: Path
    recipe: str
    metrics: list[dict[str, Any]]
    evaluations: dict[str, Evaluation]
    positions: Positions | None
    environment: dict[str, Any] | None
    timing: dict[str, float] | None
    changes: dict[str, Any] | None = None
    state: str = "done"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The recipe's values by key, `section.key`."""
        try:
            return flat(tomllib.loads(self.recipe))
        except tomllib.TOMLDecodeError as error:
            raise ReportError(f"{self.path / 'recipe.toml'} is not TOML: {error}") from error

    @property
    def batch(self) -> int:
        """The last rollout batch with metrics; 0 before the first."""
        return max((int(line["batch"]) for line in self.metrics), default=0)

    def scores(self, decoding: str) -> list[tuple[int, Scores]]:
        """The evaluations with this decoding, in order: the batch and the scores."""
        every = self.evaluations.values()
        return [(e.batch, e.decodings[decoding]) for e in every if decoding in e.decodings]

    def series(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """One metric over training.

        Args:
            name: A key of `metrics.jsonl`.

        Returns:
            The rollout batches and the values, both [N], without the batches where the metric is
            missing or not finite.
        """
        batches = np.array([line["batch"] for line in self.metrics], dtype=float)
        values = np.array([line.get(name) for line in self.metrics], dtype=float)
        finite = np.isfinite(values)
        return batches[finite], values[finite]


def read_run(run_dir: Path | str, *, glance: bool = False) -> Run:
    """Read a run directory.

    `recipe.toml` and `metrics.jsonl` are required, everything else may be absent; of a run at work,
    a line that is being written and metrics that are still to come may be, too.

    Args:
        run_dir: The directory.
        glance: Leave out the statistics by position, which are the most of it, and let metrics be
            absent of any run.

    Returns:
        Its content.

    Raises:
        ReportError: A required file is missing, or a file cannot be read; the message names it.
    """
    path = Path(run_dir)
    running = is_locked(path)
    metrics = path / "metrics.jsonl"
    timing = _read_json(path / "timing.json")
    evaluations = read_evaluations(path)
    return Run(
        path=path,
        recipe=_required(path / "recipe.toml").read_text(encoding="utf-8"),
        metrics=_read_metrics(metrics, growing=running or glance),
        evaluations=evaluations,
        positions=None if glance else _read_positions(path / "positions.parquet"),
        environment=_read_json(path / "environment.json"),
        timing=None if timing is None else timing["phases"],
        changes=_read_json(path / "changes.json"),
        state="running" if running else "done" if "final" in evaluations else "stopped",
    )


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values by keys with dots between; what is empty is left out."""
    result: dict[str, Any] = {}
    for name, value in values.items():
        key = prefix + name
        result |= flat(value, f"{key}.") if isinstance(value, dict) else {key: value}
    return result


def read_evaluations(run_dir: Path | str) -> dict[str, Evaluation]:
    """Read `evaluations/*.json` of a run directory.

    Returns:
        Evaluations by file name without its ending, in the order of their batches.

    Raises:
        ReportError: A file cannot be read; the message names it.
    """
    evaluations = []
    for file in sorted((Path(run_dir) / "evaluations").glob("*.json")):
        content = _read_json(file)
        try:
            evaluations.append(_evaluation(file.stem, content or {}))
        except (KeyError, TypeError) as error:
            raise ReportError(f"{file} is not an evaluation: {error!r}") from error
    return {one.name: one for one in sorted(evaluations, key=lambda one: one.batch)}


def read_table(file: Path, columns: list[str], **options: Any) -> pa.Table | None:  # noqa: ANN401
    """Read columns of a Parquet file, or of a directory of them.

    Args:
        file: The file or directory.
        columns: Names of columns; those that the file lacks are left out.
        **options: Passed on to `pyarrow.parquet.ParquetDataset`.

    Returns:
        The table, or None where there is no such file or no file in the directory.

    Raises:
        ReportError: The file is no Parquet file.
    """
    if not file.is_file() and not any(file.glob("*.parquet")):
        return None
    try:
        dataset = pq.ParquetDataset(file, **options)
        present = set(dataset.schema.names)
        return dataset.read(columns=[name for name in columns if name in present])
    except (pa.ArrowException, OSError) as error:
        raise ReportError(f"{file} cannot be read: {error}") from error


def _required(file: Path) -> Path:
    if not file.is_file():
        raise ReportError(f"{file} is missing; a report cannot be drawn without it")
    return file


def _read_json(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ReportError(f"{file} is not JSON: {error}") from error
    return content


def _read_metrics(file: Path, *, growing: bool) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    if growing and not file.is_file():
        return lines
    whole = _required(file).read_text(encoding="utf-8").splitlines(keepends=True)
    if growing and whole and not whole[-1].endswith("\n"):
        whole.pop()
    for number, text in enumerate(whole, start=1):
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            raise ReportError(f"{file}, line {number}, is not JSON: {error}") from error
    return lines


def _read_positions(file: Path) -> Positions | None:
    table = read_table(file, list(COLUMNS))
    if table is None:
        return None
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise ReportError(f"{file} lacks the columns {', '.join(missing)}")
    return Positions({name: table[name].to_numpy() for name in COLUMNS})


def _evaluation(name: str, content: dict[str, Any]) -> Evaluation:
    decodings = {
        decoding: Scores(
            samples_per_problem=content[decoding]["samples_per_problem"],
            overall=_score(content[decoding]["overall"]),
            by_source={
                source: _score(score) for source, score in content[decoding]["by_source"].items()
            },
        )
        for decoding in ("sampled", "greedy")
        if content.get(decoding) is not None
    }
    by_problem = (content.get("sampled") or {}).get("by_problem", {})
    return Evaluation(name, content["batch"], decodings, by_problem)


def _score(content: dict[str, Any]) -> Score:
    # JSON has no NaN: a mean over nothing is written as null.
    mean, low, high, error = (
        float("nan") if content[name] is None else float(content[name])
        for name in ("mean", "low", "high", "clustered_error")
    )
    return Score(
        mean, low, high, error, content["problems"], content["answers"], content["unknown"]
    )
