"""The one function that runs a recipe."""

from __future__ import annotations

from pathlib import Path

import torch

from ctpo.tasks import Problem
from ctpo.training.engine import engine_of
from ctpo.training.job import Job
from ctpo.training.listening import Listener, Quiet
from ctpo.training.models import quiet_libraries
from ctpo.training.policy import check_own_parts
from ctpo.training.problems import problems
from ctpo.training.recipe.recipe import Recipe
from ctpo.training.run_directory import RunDirectory


def run(
    recipe: Recipe,
    directory: RunDirectory,
    *,
    cache: Path,
    listener: Listener | None = None,
) -> None:
    """Run a recipe from its last checkpoint, or from the beginning where there is none.

    A run that is finished is left as it is.

    Args:
        recipe: What to do.
        directory: Where to write; its files are listed in `docs/architecture.md`.
        cache: Directory of warm-started models.
        listener: Is told how far the run is.

    Raises:
        SandboxUnavailable: Programs cannot be isolated on this machine.
        SandboxFailure: Too many programs failed by the sandbox's own fault.
        WarmStartFailed: The tiny model did not learn to use the tool.
        ModelNotFound: The recipe's model cannot be loaded.
        ValueError: A problem file cannot be read.
        VerlFailed: verl ended before it was done; says why.
    """
    if directory.finished:
        return
    job = Job(recipe, directory, *preflight(recipe), cache, listener or Quiet())
    quiet_libraries()
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    try:
        engine_of(recipe).train(job)
    finally:
        directory.add_timing(job.watch.phases)


def preflight(recipe: Recipe) -> tuple[list[Problem], list[Problem]]:
    """Find out before any work is done what cannot be read or is not installed.

    Returns:
        The problems to train on and those held out.

    Raises:
        FileNotFoundError: A file of problems is not there.
        ValueError: It cannot be read or has too few problems, a part of the user's cannot be found
            or used, vLLM or verl is not installed, or the engine cannot do what is asked for.
    """
    check_own_parts(recipe)
    engine_of(recipe).preflight()
    return problems(recipe)
