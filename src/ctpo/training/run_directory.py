"""The run directory: everything a run leaves behind, in files any tool can read."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ctpo.engines.batch_files import batch_file, files_after, write_positions, write_whole
from ctpo.evaluation import Evaluation
from ctpo.objective import PositionStatistics
from ctpo.tir import Trajectory
from ctpo.tir.storage import write_trajectories
from ctpo.training.recipe.loading import dump_recipe, load_recipe
from ctpo.training.recipe.recipe import Recipe

_PACKAGES = ("accelerate", "ctpo", "datasets", "numpy", "peft", "torch", "transformers", "trl")
# Of other engines, named where they are installed.
_PERHAPS = ("ray", "sglang", "verl", "vllm")


class RunDirectory:
    """One run on disk. Nothing is held open, and files appear whole.

    `positions.parquet` and `trajectories.parquet` are directories of one file per batch, which
    Parquet readers take for one table.

    Args:
        path: The directory.
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
        path.mkdir(parents=True)
        for name in ("positions.parquet", "trajectories.parquet", "evaluations", "checkpoints"):
            (path / name).mkdir()
        (path / "recipe.toml").write_text(dump_recipe(recipe))
        run = cls(path)
        run._write_json("environment.json", environment())
        return run

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
    def writing_model(self) -> Iterator[Path]:
        """Yield a directory to write the trained model to; it becomes `model` when it is whole."""
        unfinished = self.path / ".model.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        yield unfinished
        for path in (*unfinished.rglob("*"), unfinished):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        shutil.rmtree(self.model, ignore_errors=True)
        unfinished.rename(self.model)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to do: the model and its final evaluation are there."""
        return self.has_evaluation("final") and (self.model / "config.json").is_file()

    def last_checkpoint(self) -> Path | None:
        """Return the newest whole checkpoint, or None."""
        found = [
            (int(path.name.removeprefix("checkpoint-")), path)
            for path in self.checkpoints.glob("checkpoint-*")
            if (path / "trainer_state.json").is_file()
        ]
        return max(found)[1] if found else None

    def metrics(self) -> list[dict[str, Any]]:
        """Return the whole lines of `metrics.jsonl`."""
        file = self.path / "metrics.jsonl"
        text = file.read_text() if file.is_file() else ""
        return [json.loads(x) for x in text.splitlines(keepends=True) if x.endswith("\n")]

    def forget_after(self, batch: int) -> None:
        """Drop what a run wrote beyond `batch`, before it is resumed from there."""
        metrics = self.path / "metrics.jsonl"
        if metrics.is_file():
            # A line without its end was being written when the run was killed.
            lines = [x for x in metrics.read_text().splitlines(keepends=True) if x.endswith("\n")]
            text = "".join(x for x in lines if json.loads(x)["batch"] <= batch)
            write_whole(metrics, lambda path: path.write_text(text))
        for table in ("positions.parquet", "trajectories.parquet"):
            for file in files_after(self.path / table, batch):
                file.unlink()

    def add_metrics(self, metrics: dict[str, float | int | None]) -> None:
        """Append a line to `metrics.jsonl`."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(metrics) + "\n")

    def add_positions(self, positions: PositionStatistics, batch: int) -> None:
        """Write the statistics by position of one batch."""
        write_positions(self.path / "positions.parquet", positions, batch)

    def add_trajectories(self, trajectories: Sequence[Trajectory], batch: int) -> None:
        """Write the trajectories of one batch."""
        path = self.path / "trajectories.parquet" / batch_file(batch)
        write_whole(path, lambda aside: write_trajectories(aside, trajectories, batch))

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
        text = json.dumps(content, indent=2) + "\n"
        write_whole(self.path / name, lambda path: path.write_text(text))


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
