"""The study: which runs are compared in what, written down before any of them is run.

The text under a field is its documentation.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from ctpo.training.recipe.loading import RecipeError, explain, load_recipe, nearest
from ctpo.training.recipe.recipe import Recipe, Section

Level = list[str] | dict[str, list[str]]
"""Changes of the recipe as `ctpo train --set` takes them, for all methods or for each."""

Levels = dict[str, str]
"""The level by axis."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
_GIVEN = {"name": "the study names its runs", "seed": "seeds says it", "threads": "it is always 1"}


class StudyError(ValueError):
    """The study cannot be used; the message says what is wrong and what would be right."""


class Tuning(Section):
    """Every method finds its own best setting first, from the same trials."""

    seeds: list[int] = Field(min_length=1)
    """Seeds to tune on. None of them is used again."""
    axes: dict[str, dict[str, Level]] = Field(min_length=1)
    """What is tried, as `axes`. Where two levels come to the same recipe, as the clip of a method
    that clips nothing, it is run once."""
    at: Levels = Field(default_factory=dict)
    """The level of an axis at which is tuned for all of its levels. At each level of an axis that
    is not named here a method is tuned by itself."""


class Collapse(Section):
    """When a run counts as collapsed: by its accuracy, or by both of the other two."""

    accuracy: float = Field(0.5, ge=0)
    """Its last evaluation is below this share of its first."""
    kl: float = Field(2.0, gt=0)
    """KL(π_old‖π_θ) of a response, in nats and as a mean over a batch's updates, is above it."""
    ess: float = Field(0.1, ge=0, le=1)
    """The effective sample size of the weights, as a share of the tokens, is below it."""


class Headroom(Section):
    """How far an axis can be pushed."""

    axis: str
    """An axis whose levels stand in rising order."""
    sound: float = Field(0.875, gt=0, le=1)
    """Least share of a cell's seeds that must be sound."""
    margin: float = Field(0.05, ge=0)
    """A run is sound if it has not collapsed and ends at most so far below the best mean of any
    method and level of this axis."""


class Study(Section):
    """A study."""

    name: str
    """Names the directory and the tables."""
    question: str
    """What is asked, and what would answer it."""
    recipe: str
    """What every run begins with: a shipped recipe, or a file beside this one."""
    set: list[str] = Field(default_factory=list)
    """Changes of the recipe for every run, `section.key=value`."""
    methods: dict[str, list[str]] = Field(min_length=1)
    """What is compared: names, and changes of the recipe for each."""
    reference: str
    """The method that all others are compared with."""
    axes: dict[str, dict[str, Level]] = Field(default_factory=dict)
    """What else varies: axes, their levels and the changes of the recipe for each."""
    seeds: list[int] = Field(min_length=1)
    """The seeds of each cell. Runs of the same seed, levels and warm start are a pair."""
    outcome: Literal["final", "mean"] = "final"
    """The primary outcome, from sampled held-out accuracy: of the last evaluation, or the mean over
    all evaluations after the first, which is larger for what learns sooner."""
    threshold: float = Field(0.8, gt=0, le=1)
    """Sampled held-out accuracy, for the number of batches until it is reached."""
    cell_minutes: float = Field(gt=0)
    """About how long a run takes on one core; only for the first estimate of the time."""
    tuning: Tuning | None = None
    collapse: Collapse = Collapse()
    headroom: Headroom | None = None

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.reference not in self.methods:
            raise ValueError(_unknown("reference", self.reference, self.methods))
        tuned = {} if self.tuning is None else self.tuning.axes
        for axis in self.axes.keys() & tuned.keys():
            raise ValueError(f"axis {axis!r} is both in axes and in tuning.axes")
        axes = self.axes | tuned
        levels_of = itertools.chain.from_iterable(axes.values())
        for name in (self.name, *self.methods, *axes, *levels_of):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a name: letters, digits and . + - only")
        for axis in axes.keys() & {"method", "seed"}:
            raise ValueError(f"no axis may be called {axis!r}")
        for axis, levels in axes.items():
            for level, changes in levels.items():
                if isinstance(changes, dict) and changes.keys() != self.methods.keys():
                    wrong = sorted(changes.keys() ^ self.methods.keys())
                    raise ValueError(
                        f"level {level!r} of {axis!r} has changes by method and must have them "
                        f"(perhaps none) for every method and no other; see {', '.join(wrong)}"
                    )
        self._check_seeds()
        self._check_keys(axes)
        if self.tuning is not None:
            for axis, level in self.tuning.at.items():
                if axis not in self.axes:
                    raise ValueError(_unknown("tuning.at", axis, self.axes))
                if level not in self.axes[axis]:
                    raise ValueError(_unknown(f"tuning.at.{axis}", level, self.axes[axis]))
        if self.headroom is not None and self.headroom.axis not in self.axes:
            raise ValueError(_unknown("headroom.axis", self.headroom.axis, self.axes))
        return self

    def compared_with(self, reference: str | None) -> Study:
        """Return this study with another reference; None keeps it.

        Raises:
            StudyError: There is no such method.
        """
        if reference is None:
            return self
        if reference not in self.methods:
            raise StudyError(_unknown("reference", reference, self.methods))
        return self.model_copy(update={"reference": reference})

    def _check_seeds(self) -> None:
        tuning = [] if self.tuning is None else self.tuning.seeds
        for name, seeds in (("seeds", self.seeds), ("tuning.seeds", tuning)):
            if len(set(seeds)) < len(seeds) or min(seeds, default=0) < 0:
                raise ValueError(f"{name} is {seeds}; it must be different numbers from 0")
        if both := sorted({*self.seeds} & {*tuning}):
            raise ValueError(
                f"seeds {both} are in seeds and in tuning.seeds; a setting that was chosen on a "
                "seed would look better on it than it is"
            )

    def _check_keys(self, axes: Mapping[str, Mapping[str, Level]]) -> None:
        """Refuse what one change would silently undo of another."""
        for method in self.methods:
            by_axis = {
                axis: {_key(c) for level in levels.values() for c in _of(level, method)}
                for axis, levels in axes.items()
            }
            for (one, keys), (other, others) in itertools.combinations(by_axis.items(), 2):
                if both := keys & others:
                    raise ValueError(f"axes {one!r} and {other!r} both set {min(both)}")
            given = {*map(_key, [*self.set, *self.methods[method]])}.union(*by_axis.values())
            for key in given & _GIVEN.keys():
                raise ValueError(f"{key} cannot be set: {_GIVEN[key]}")

    def settings(self, axes: Mapping[str, Iterable[str]]) -> Iterator[Levels]:
        """Yield every combination of levels."""
        for levels in itertools.product(*axes.values()):
            yield dict(zip(axes, levels, strict=True))

    def recipe_of(self, folder: Path, method: str, levels: Levels, seed: int) -> Recipe:
        """Return the recipe of a run.

        Args:
            folder: Where the study's file is.
            method: One of `methods`.
            levels: A level of each axis, those of the tuning included.
            seed: The run's.

        Raises:
            StudyError: There is no such recipe, or a change of it cannot be made.
        """
        axes = self.axes | ({} if self.tuning is None else self.tuning.axes)
        changes = [*self.set, *self.methods[method]]
        for axis, level in levels.items():
            changes += _of(axes[axis][level], method)
        source = str(folder / self.recipe) if self.recipe.endswith(".toml") else self.recipe
        own = [f'name="{self.name}"', f"seed={seed}", "threads=1"]
        try:
            return load_recipe(source, [*changes, *own])
        except RecipeError as error:
            place = ", ".join([method, *(f"{axis} {level}" for axis, level in levels.items())])
            raise StudyError(f"{self.name}, {place}: {error}") from None

    def digest(self, folder: Path) -> str:
        """Return a hash of what the study says, and of the recipe that it begins with."""
        source = str(folder / self.recipe) if self.recipe.endswith(".toml") else self.recipe
        base = load_recipe(source, self.set).model_dump(mode="json")
        text = json.dumps([self.model_dump(mode="json"), base])  # in order: it decides ties
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def load_study(path: Path) -> Study:
    """Load a study and check it, but for the recipes that it leads to.

    Raises:
        StudyError: There is no such file, a key is unknown or a value is wrong.
    """
    try:
        return Study.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise StudyError(f"there is no file {path}") from None
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{path} is not TOML: {error}") from None
    except ValidationError as error:
        raise StudyError(f"{path}: {explain(error, Study)}") from None


def _of(level: Level, method: str) -> list[str]:
    return level[method] if isinstance(level, dict) else level


def _key(change: str) -> str:
    return change.partition("=")[0].strip()


def _unknown(field: str, name: str, names: Iterable[str]) -> str:
    names = list(names)
    return f"{field} is {name!r}{nearest(name, names)}; it must be one of {', '.join(names)}"
