"""verl as an engine: what can be known before its process is started."""

from __future__ import annotations

import functools
import importlib.util
import os
from pathlib import Path

from ctpo.engines.verl import check
from ctpo.training.job import Job
from ctpo.training.models import check_model
from ctpo.training.recipe.recipe import Recipe
from ctpo.training.verl import config as verl_config
from ctpo.training.verl.fields import refuse
from ctpo.training.verl.files import VerlFiles
from ctpo.training.verl.run import train
from ctpo.training.verl.settings import settings

# It takes seconds, and the answer stays the same.
_plugin_loaded = functools.cache(check.plugin_loaded)


class VerlEngine:
    """verl, as a process of its own; see `Engine`."""

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.verl is not None, "the recipe has been checked"
        self._recipe, self._verl = recipe, recipe.verl

    def preflight(self) -> None:
        """Find out what would fail, as far as that can be known before anything starts.

        Raises:
            ValueError: verl is not installed or does not load the plug-in, the recipe asks for
                something that verl cannot do, or verl refuses its configuration.
            ModelNotFound: There is no such model.
        """
        self.describe(Path(self._recipe.name))
        engine = self._verl.rollout_engine
        here = "RAY_ADDRESS" not in os.environ  # another machine of the cluster may have it
        if engine in ("sglang", "vllm") and here and importlib.util.find_spec(engine) is None:
            raise ValueError(f"verl.rollout_engine is {engine!r}, and {engine} is not installed")
        found = _plugin_loaded()
        if not found.loaded:
            raise ValueError(f"verl would not find ctpo's losses: {found.words}")
        if self._recipe.model.path is not None:
            check_model(self._recipe.model.path)

    def describe(self, run: Path) -> str:
        """Return verl's settings, its whole configuration and the command, all checked.

        Raises:
            ValueError: verl is not installed, the recipe asks for something that verl cannot do, or
                verl refuses its configuration.
        """
        refuse(self._recipe)
        if importlib.util.find_spec("verl") is None:
            raise ValueError(
                "verl is not installed; install ctpo[verl], with Python 3.11 or 3.12 (verl has no "
                "release for 3.13)"
            )
        files = VerlFiles(run.resolve())
        model = self._recipe.model.path or "the warm start's model"
        decided = settings(self._recipe, files, model)
        config = verl_config.compose(self._verl, decided)
        verl_config.validate(config)
        return verl_config.describe(config, decided, files)

    def train(self, job: Job) -> None:
        """Train; see `Engine`."""
        train(job)


ENGINE = VerlEngine
