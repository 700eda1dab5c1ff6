"""The run directory: everything a run leaves behind, in files any tool can read."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import math
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ctpo.disk import clear_unfinished, locked, whole_directory, write_text, write_whole
from ctpo.engines.batch_files import batch_file, files_after, write_positions
from ctpo.evaluation import Evaluation
from ctpo.objective import PositionStatistics
from ctpo.tir import Trajectory
from ctpo.tir.storage import write_trajectories
from ctpo.training import checkpoints
from ctpo.training.recipe.loading import dump_recipe, load_recipe, recipe_changes
from ctpo.training.recipe.recipe import Recipe

logger = logging.getLogger(__name__)

_TABLES = ("positions.parquet", "trajectories.parquet", "transcripts.parquet")
_TRANSCRIPT = pa.schema(
    {
        "batch": pa.int32(),
        **dict.fromkeys(("problem_id", "question", "finish_reason"), pa.string()),
        **dict.fromkeys(("reward", "advantage"), pa.float32()),
        "updates": pa.int32(),
        "tokens": pa.list_(pa.string()),
        "log_ratios": pa.list_(pa.float32()),
        **dict.fromkeys(("mask", "clipped"), pa.list_(pa.bool_())),
    }
)
_PACKAGES = ("accelerate", "ctpo", "datasets", "numpy", "peft", "torch", "transformers", "trl")
# Of other engines, named where they are installed.
_PERHAPS = ("ray", "sglang", "verl", "vllm")


class RunDirectory:
    """One run on disk. Nothing is held open, and files appear whole.

    `positions.parquet`, `trajectories.parquet` and `transcripts.parquet` are directories of one
    file per batch, which Parquet readers take for one table.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, recipe: Recipe) -> RunDirectory:
        """Make a new run directory with its recipe and environment.

        Raises:
            FileExistsError: There is something at `path`.
        """
        if path.exists():
            raise FileExistsError(f"{path} exists; take another --output, or --resume {path}")
        with whole_directory(path) as unfinished:
            for name in (*_TABLES, "evaluations", "checkpoints"):
                (unfinished / name).mkdir()
            (unfinished / "recipe.toml").write_text(dump_recipe(recipe))
            cls(unfinished)._write_json("changes.json", recipe_changes(recipe))
            cls(unfinished)._write_json("environment.json", environment())
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open a run that was begun.

        Raises:
            FileNotFoundError: `path` is not a run directory.
        """
        if not (path / "recipe.toml").is_file():
            raise FileNotFoundError(f"{path} is not a run directory: it has no recipe.toml")
        return cls(path)

    @property
    def recipe(self) -> Recipe:
        """The recipe the run was begun with."""
        return load_recipe(str(self.path / "recipe.toml"))

    @property
    def checkpoints(self) -> Path:
        """Where the engine writes its checkpoints."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """Where the trained model goes."""
        return self.path / "model"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes out of the run, and remove what a killed one has left unfinished.

        Raises:
            Busy: Another process is at work in it.
        """
        with locked(self.path):
            clear_unfinished(self.path)
            yield

    def writing_model(self) -> AbstractContextManager[Path]:
        """Yield a directory to write the trained model to; it becomes `model` when it is whole."""
        return whole_directory(self.model)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do: the model and its final evaluation are there."""
        return self.has_evaluation("final") and (self.model / "config.json").is_file()

    def last_checkpoint(self) -> Path | None:
        """Return the newest whole checkpoint, or None; see `checkpoints.newest_whole`."""
        return checkpoints.newest_whole(self.checkpoints)

    def metrics(self) -> list[dict[str, Any]]:
        """Return the whole lines of `metrics.jsonl`."""
        return [line for line in map(_metrics_of, self._metrics_lines()) if line is not None]

    def _metrics_lines(self) -> list[str]:
        file = self.path / "metrics.jsonl"
        text = file.read_text(errors="replace") if file.is_file() else ""
        # A line without its end is being written, or was when the run was killed.
        return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def forget_after(self, batch: int) -> None:
        """Drop what a run wrote beyond `batch`, before it is resumed from there.

        What is damaged of the batches before is set aside under a name that readers of tables pass
        over, and logged.
        """
        metrics = self.path / "metrics.jsonl"
        if metrics.is_file():
            lines = self._metrics_lines()
            if None in (read := [_metrics_of(line) for line in lines]):
                self._set_aside(metrics, "a line of it is no metrics; the others are kept")
            kept = [
                line
                for line, found in zip(lines, read, strict=True)
                if found is not None and found["batch"] <= batch
            ]
            write_text(metrics, "".join(kept))
        for table in _TABLES:
            if not (self.path / table).is_dir():
                continue  # a run of an earlier version had fewer
            for file in files_after(self.path / table, batch):
                file.unlink()
            for file in files_after(self.path / table, 0):
                try:
                    # All of the small table, of the other what a torn file lacks.
                    (pq.read_table if table == _TABLES[0] else pq.read_metadata)(file)
                except (OSError, pa.ArrowException) as error:
                    self._set_aside(file, f"figures and pages will lack this batch: {error}")

    def _set_aside(self, file: Path, why: str) -> None:
        aside = file.with_name(f"_damaged-{file.name}")
        file.rename(aside)
        logger.warning("%s is damaged and set aside as %s: %s", file, aside.name, why)

    def add_metrics(self, metrics: dict[str, float | int | None]) -> None:
        """Append a line to `metrics.jsonl`; what JSON has no number for becomes null."""
        known = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in metrics.items()
        }
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(known, allow_nan=False) + "\n")

    def add_positions(self, positions: PositionStatistics, batch: int) -> None:
        """Write the statistics by position of one batch."""
        write_positions(self.path / "positions.parquet", positions, batch)

    def add_trajectories(self, trajectories: Sequence[Trajectory], batch: int) -> None:
        """Write the trajectories of one batch."""
        path = self.path / "trajectories.parquet" / batch_file(batch)
        write_whole(path, lambda aside: write_trajectories(aside, trajectories, batch))

    def add_transcripts(self, transcripts: Sequence[dict[str, Any]], batch: int) -> None:
        """Write a few answers of one batch with what the loss made of every token."""
        rows = pa.Table.from_pylist([{"batch": batch, **one} for one in transcripts], _TRANSCRIPT)
        path = self.path / "transcripts.parquet" / batch_file(batch)
        write_whole(path, lambda aside: pq.write_table(rows, aside))

    def has_evaluation(self, name: str) -> bool:
        """Return whether an evaluation was written."""
        return (self.path / "evaluations" / f"{name}.json").is_file()

    def add_evaluation(
        self, name: str, batch: int, sampled: Evaluation, greedy: Evaluation | None
    ) -> None:
        """Write one evaluation: `start`, `final` or `batch-0020`."""
        content = {
            "batch": batch,
            "sampled": sampled.to_dict(),
            "greedy": None if greedy is None else greedy.to_dict(),
        }
        self._write_json(f"evaluations/{name}.json", content)

    def add_timing(self, phases: dict[str, float]) -> None:
        """Write the seconds by phase; those of an earlier part of the run are added to."""
        path = self.path / "timing.json"
        before = json.loads(path.read_text())["phases"] if path.is_file() else {}
        names = list(dict.fromkeys([*before, *phases]))
        total = {name: before.get(name, 0.0) + phases.get(name, 0.0) for name in names}
        self._write_json("timing.json", {"phases": total})

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        write_text(self.path / name, json.dumps(content, indent=2, allow_nan=False) + "\n")


def _metrics_of(line: str) -> dict[str, Any] | None:
    """Return the metrics that a line holds; None if it is damaged."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("batch"), int) else None


def environment() -> dict[str, Any]:
    """Return the versions and the machine a run depends on."""
    pages, page_size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in (*_PACKAGES, *_perhaps())},
        "system": f"{platform.system()} {platform.machine()}",
        "processors": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "memory_gib": round(pages * page_size / 2**30, 1),
        "gpus": gpus,
    }


def _perhaps() -> list[str]:
    return [name for name in _PERHAPS if importlib.util.find_spec(name) is not None]
