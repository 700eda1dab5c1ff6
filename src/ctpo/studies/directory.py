"""A study on disk: its file, and a directory for each cell."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any

from ctpo.disk import write_text
from ctpo.studies.cells import Cell
from ctpo.studies.study import Study, StudyError, load_study
from ctpo.training.recipe.loading import dump_recipe, load_recipe
from ctpo.training.run_directory import RunDirectory


class State(enum.Enum):
    """How far a cell is. Read from its files each time, so there is nothing to get out of step."""

    NEW = "to do"
    BEGUN = "begun"
    DONE = "done"
    FAILED = "failed"


class StudyDirectory:
    """One study on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def prepare(
        cls, path: Path, study: Study, file: Path, *, accept_changes: bool = False
    ) -> StudyDirectory:
        """Make the directory of a study, or take up one that was begun.

        Args:
            path: The directory.
            study: The study.
            file: Its file, which is copied.
            accept_changes: Go on although the study is not the one that was begun.

        Raises:
            StudyError: Another study was begun there, or something else is there.
        """
        kept = cls(path)
        digest = study.digest(file.parent)
        if path.exists() and not (path / "study.json").is_file() and any(path.iterdir()):
            raise StudyError(f"{path} is not the directory of a study; take another --output")
        if (path / "study.json").is_file() and kept.digest != digest and not accept_changes:
            raise StudyError(
                f"{path} was begun with another content of the study or of its recipe: "
                f"{kept.digest}, and this is {digest}. Take another --output, or say "
                "--accept-changes to keep the runs that are the same in both"
            )
        (path / "cells").mkdir(parents=True, exist_ok=True)
        (path / "warm-starts").mkdir(exist_ok=True)
        write_text(path / "study.toml", file.read_text(encoding="utf-8"))
        _write(path / "study.json", {"name": study.name, "digest": digest})
        return kept

    @classmethod
    def open(cls, path: Path) -> StudyDirectory:
        """Open the directory of a study.

        Raises:
            StudyError: It is none.
        """
        if not (path / "study.json").is_file():
            raise StudyError(f"{path} is not the directory of a study: it has no study.json")
        return cls(path)

    @property
    def study(self) -> Study:
        """The study."""
        return load_study(self.path / "study.toml")

    @property
    def digest(self) -> str:
        """What the study was begun with; see `Study.digest`."""
        digest: str = json.loads((self.path / "study.json").read_text())["digest"]
        return digest

    def place(self, cell: Cell) -> Path:
        """Return the directory of a cell; its run is in `run/`."""
        return self.path / "cells" / cell.name

    def state(self, cell: Cell) -> State:
        """Return how far a cell is.

        Raises:
            StudyError: What is there was run by another recipe.
        """
        place = self.place(cell)
        if not (place / "run" / "recipe.toml").is_file():
            return State.FAILED if (place / "failed.json").is_file() else State.NEW
        run = RunDirectory.open(place / "run")
        if run.recipe != cell.recipe:
            raise StudyError(
                f"{place} was run by another recipe than the study now has; move it away"
            )
        if run.finished:
            return State.DONE
        return State.FAILED if (place / "failed.json").is_file() else State.BEGUN

    def write_cell(self, cell: Cell, warm_start: str | None) -> Path:
        """Write what a child needs to run a cell, and what a report needs to know of it.

        Returns:
            The cell's directory.

        Raises:
            StudyError: Its run was begun with another warm start.
        """
        place = self.place(cell)
        if (place / "run").exists():
            begun = json.loads((place / "cell.json").read_text())["warm_start"]
            if begun != warm_start:
                raise StudyError(
                    f"{place} was begun with the warm start {begun}, and with this version of the "
                    f"code it would be {warm_start}; move it away, or go on with the version before"
                )
        content = {
            "phase": cell.phase,
            "method": cell.method,
            "levels": cell.levels,
            "tuned": cell.tuned,
            "seed": cell.seed,
            "warm_start": warm_start,
            "study": self.digest,
        }
        place.mkdir(exist_ok=True)
        write_job(place, dump_recipe(cell.recipe), content)
        return place

    def forget_failures(self) -> None:
        """Let what failed be tried again."""
        for file in self.path.glob("*/*/failed.json"):
            file.unlink()


def write_job(place: Path, recipe: str, content: dict[str, Any]) -> None:
    """Write a child's recipe and what it is for.

    Args:
        place: The directory.
        recipe: The recipe as TOML.
        content: For `cell.json`.
    """
    write_text(place / "recipe.toml", recipe)
    _write(place / "cell.json", content)


def write_failure(place: Path, error: str) -> None:
    """Record that a child failed."""
    _write(place / "failed.json", {"error": error})


def open_run(place: Path) -> RunDirectory:
    """Return the run directory of a cell, made if need be."""
    if not (place / "run").exists():
        RunDirectory.create(place / "run", load_recipe(str(place / "recipe.toml")))
    return RunDirectory.open(place / "run")


def _write(path: Path, content: dict[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2) + "\n")
