"""One run under way: what is to be done, where, and who is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ctpo.sandbox import Sandbox
from ctpo.tasks import Problem
from ctpo.training.listening import Listener, Stopwatch
from ctpo.training.policy import start_sandbox
from ctpo.training.recipe.recipe import Recipe
from ctpo.training.run_directory import RunDirectory
from ctpo.training.termination import Termination
from ctpo.training.tiny.warm_start import warm_start


@dataclass(frozen=True)
class Job:
    """What an engine is given to train.

    Attributes:
        recipe: What to do.
        directory: Where to write.
        train: The problems to train on.
        held_out: The problems to evaluate on.
        cache: Directory of warm-started models.
        listener: Is told how far the run is.
        termination: Knows whether this process was asked to end.
        watch: Counts the time.
    """

    recipe: Recipe
    directory: RunDirectory
    train: Sequence[Problem]
    held_out: Sequence[Problem]
    cache: Path
    listener: Listener
    termination: Termination = field(default_factory=Termination)
    watch: Stopwatch = field(default_factory=Stopwatch)

    def start_sandbox(self) -> Sandbox:
        """Return the recipe's sandbox; entering it starts it."""
        return start_sandbox(self.recipe.sandbox)

    def policy_path(self, sandbox: Sandbox) -> str:
        """Return where the policy to train is, after warm-starting a tiny one if need be."""
        if self.recipe.model.path is not None:
            return self.recipe.model.path
        assert self.recipe.warm_start is not None, "the recipe has been checked"
        self.listener.phase("warm start", None)
        with self.watch.time("warm start"):
            return str(warm_start(self.recipe, sandbox, self.cache, self.listener))
