"""The cells of a study: one run each, first those of the tuning and then those of the test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from ctpo.studies.study import Levels, Study, StudyError
from ctpo.training.recipe.recipe import Recipe


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        phase: What it is for.
        method: One of the study's.
        levels: A level of each axis; in the tuning also of each axis that is tuned.
        tuned: In the test, what the tuning chose.
        seed: The run's.
        recipe: What all this comes to.
    """

    phase: Literal["tuning", "test"]
    method: str
    levels: Levels
    tuned: Levels
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """Name of its directory, which does not depend on what the tuning chose."""
        levels = [f"{axis}={level}" for axis, level in self.levels.items()]
        return "_".join([self.phase, self.method, *levels, f"seed={self.seed}"])


class Trial(NamedTuple):
    """A run of the tuning and what came out; no outcome if it is not there or failed."""

    method: str
    levels: Levels
    outcome: float | None


Chosen = Mapping[tuple[str, tuple[str, ...]], Levels]
"""What was chosen, by method and levels of the axes at each of which is tuned."""


def tuning_cells(study: Study, folder: Path) -> list[Cell]:
    """Return the runs of the tuning; those that come to the same recipe once.

    Raises:
        StudyError: A recipe cannot be made.
    """
    if study.tuning is None:
        return []
    cells = []
    axes: dict[str, Iterable[str]] = {**tuned_at(study), **study.tuning.axes}
    for method in study.methods:
        seen: list[Recipe] = []
        for levels in study.settings(axes):
            for seed in study.tuning.seeds:
                recipe = study.recipe_of(folder, method, levels, seed)
                if recipe not in seen:
                    seen.append(recipe)
                    cells.append(Cell("tuning", method, levels, {}, seed, recipe))
    return cells


def result_cells(study: Study, folder: Path, chosen: Chosen) -> list[Cell]:
    """Return the runs that the results are made of.

    Args:
        study: The study.
        folder: Where its file is.
        chosen: What the tuning chose; empty where there is none.

    Raises:
        StudyError: A recipe cannot be made.
    """
    cells = []
    # All methods of a seed before the next seed, so that a study in the making can be read.
    for seed in study.seeds:
        for method in study.methods:
            for levels in study.settings(study.axes):
                tuned = chosen[method, free(study, levels)] if study.tuning is not None else {}
                recipe = study.recipe_of(folder, method, levels | tuned, seed)
                cells.append(Cell("test", method, levels, dict(tuned), seed, recipe))
    return cells


def choose(study: Study, trials: Iterable[Trial]) -> Chosen:
    """Return the best setting of every method: that of the highest mean outcome over the seeds.

    Of equal ones the first in the file. A setting of which a run failed is not chosen.

    Raises:
        StudyError: A run is not done, or no setting of a method came through.
    """
    if study.tuning is None:
        return {}
    outcomes: dict[tuple[str, tuple[tuple[str, str], ...]], list[float | None]] = {}
    for trial in trials:
        key = trial.method, tuple(sorted(trial.levels.items()))
        outcomes.setdefault(key, []).append(trial.outcome)
    chosen: dict[tuple[str, tuple[str, ...]], Levels] = {}
    best: dict[tuple[str, tuple[str, ...]], float] = {}
    for method in study.methods:
        for levels in study.settings(tuned_at(study)):
            place = method, free(study, levels)
            for tuned in study.settings(study.tuning.axes):
                found = outcomes.get((method, tuple(sorted((levels | tuned).items()))), [])
                complete = [outcome for outcome in found if outcome is not None]
                if len(complete) < len(study.tuning.seeds):
                    continue
                mean = float(np.mean(complete))
                if mean > best.get(place, -np.inf):
                    best[place], chosen[place] = mean, tuned
            if place not in chosen:
                raise StudyError(
                    f"no setting of {' '.join([method, *place[1]])} came through the tuning with "
                    "all its seeds; see the log.txt of its cells"
                )
    return chosen


def tuned_at(study: Study) -> dict[str, list[str]]:
    """Return the levels of the study's axes at which is tuned."""
    at = {} if study.tuning is None else study.tuning.at
    return {axis: [at[axis]] if axis in at else list(levels) for axis, levels in study.axes.items()}


def free(study: Study, levels: Levels) -> tuple[str, ...]:
    """Return the levels of the axes at each of which is tuned."""
    at = {} if study.tuning is None else study.tuning.at
    return tuple(levels[axis] for axis in study.axes if axis not in at)


def check_recipes(study: Study, folder: Path) -> int:
    """Make every recipe that the study can come to, and return how many runs the test has.

    Raises:
        StudyError: A recipe cannot be made.
    """
    tuned = {} if study.tuning is None else study.tuning.axes
    settings = list(study.settings(study.axes))
    for method in study.methods:
        for levels in study.settings(study.axes | tuned):
            study.recipe_of(folder, method, levels, study.seeds[0])
    return len(study.methods) * len(settings) * len(study.seeds)
