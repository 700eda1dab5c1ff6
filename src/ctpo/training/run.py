"""The one function that runs a recipe."""

from __future__ import annotations

from pathlib import Path

import torch

from ctpo.disk import disk_errors
from ctpo.tasks import Problem
from ctpo.training.engine import engine_of
from ctpo.training.job import Job
from ctpo.training.listening import Listener, Quiet
from ctpo.training.models import check_model, quiet_libraries
from ctpo.training.policy import check_own_parts
from ctpo.training.problems import problems
from ctpo.training.recipe.recipe import Recipe
from ctpo.training.run_directory import RunDirectory
from ctpo.training.termination import terminable


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
        Busy: Another process is at work in the directory.
        OSError: The disk is full, or cannot be written; says where.
        Terminated: SIGTERM or SIGHUP came. In training on TRL that ends at the next batch, behind a
            checkpoint of it; the second such signal, and the first elsewhere, ends at once.
    """
    with directory.locked(), terminable() as termination:
        if directory.finished:
            return
        held = listener or Quiet()
        job = Job(recipe, directory, *preflight(recipe), cache, held, termination)
        quiet_libraries()
        if recipe.threads is not None:
            torch.set_num_threads(recipe.threads)
        try:
            with disk_errors(directory.path):
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
        ModelNotFound: The recipe's model cannot be loaded.
    """
    check_own_parts(recipe)
    engine_of(recipe).preflight()
    check_model(recipe.model)
    return problems(recipe)
