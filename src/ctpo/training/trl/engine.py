"""TRL as an engine, without importing it before it trains."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from ctpo.training.recipe.recipe import Recipe

if TYPE_CHECKING:
    from ctpo.training.job import Job


class TrlEngine:
    """TRL, in this process; see `Engine`."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe

    def preflight(self) -> None:
        """Refuse a recipe whose vLLM is not installed or whose model is not there; see `Engine`."""
        if self._recipe.vllm is not None and importlib.util.find_spec("vllm") is None:
            raise ValueError(
                "the recipe has a [vllm] section and vllm is not installed: ctpo[vllm]"
            )
        if self._recipe.model.path is not None:
            from ctpo.training.models import check_model

            check_model(self._recipe.model.path)

    def describe(self, run: Path) -> str:
        """Say nothing more than the recipe does; see `Engine`."""
        return ""

    def train(self, job: Job) -> None:
        """Train; see `Engine`."""
        from ctpo.training.trl.run import train

        train(job)


ENGINE = TrlEngine
