"""What trains a recipe: the one door to TRL and to verl."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ctpo.training.job import Job
    from ctpo.training.recipe.recipe import Recipe


class Engine(Protocol):
    """What trains a recipe. It is made of one, and evaluates as it trains."""

    def preflight(self) -> None:
        """Find out before any work is done what is not installed or cannot be.

        Raises:
            ValueError: Something is not installed, or the engine cannot do what the recipe says.
        """
        ...

    def describe(self, run: Path) -> str:
        """Return what a dry run prints besides the recipe, for a run in the directory `run`.

        Raises:
            ValueError: As for `preflight`, as far as nothing needs to be started to see it.
        """
        ...

    def train(self, job: Job) -> None:
        """Train from the last checkpoint or from the beginning, evaluate, and write the model."""
        ...


def engine_of(recipe: Recipe) -> Engine:
    """Return the engine that a recipe names. What takes seconds to import waits for `train`."""
    module = importlib.import_module(f"ctpo.training.{recipe.engine}.engine")
    engine: Engine = module.ENGINE(recipe)
    return engine
