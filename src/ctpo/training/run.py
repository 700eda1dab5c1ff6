"""The one function that runs a recipe."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from ctpo.sandbox import Sandbox
from ctpo.tasks import Problem
from ctpo.tir import Generator
from ctpo.training.listening import Listener, Quiet, Stopwatch
from ctpo.training.models import frozen_in_bfloat16, load_model, quiet_libraries
from ctpo.training.policy import episode_settings, measure, start_sandbox
from ctpo.training.problems import problems
from ctpo.training.recipe.recipe import Recipe
from ctpo.training.run_directory import RunDirectory
from ctpo.training.tiny import warm_start


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
        listener: Hears how it goes.

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
    listener = listener or Quiet()
    watch = Stopwatch()
    train, held_out = preflight(recipe)
    quiet_libraries()
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    try:
        if recipe.engine == "verl":
            from ctpo.training.verl.run import train_with_verl

            # The sandbox is gone before verl starts its own.
            with start_sandbox(recipe) as sandbox:
                path = policy_path(recipe, sandbox, cache, listener, watch)
            train_with_verl(recipe, directory, train, held_out, path, listener, watch)
            return
        with start_sandbox(recipe) as sandbox:
            model, tokenizer = load_policy(recipe, sandbox, cache, listener, watch)
            evaluator = Evaluator(recipe, held_out, tokenizer, sandbox, directory, listener, watch)
            # Imported late: reading problems needs no trainer.
            from ctpo.training.trl.run import train_with_trl

            train_with_trl(
                recipe, directory, train, model, tokenizer, sandbox, evaluator, listener, watch
            )
    finally:
        directory.add_timing(watch.phases)


def preflight(recipe: Recipe) -> tuple[list[Problem], list[Problem]]:
    """Find out before any work is done what cannot be read or is not installed.

    Returns:
        The problems to train on and those held out.

    Raises:
        FileNotFoundError: A file of problems is not there.
        ValueError: It cannot be read or has too few problems, vLLM or verl is not installed, or
            the engine cannot do what the recipe asks for.
    """
    if recipe.engine == "verl":
        from ctpo.training.verl.run import preflight as preflight_verl

        preflight_verl(recipe)
    elif recipe.vllm is not None and importlib.util.find_spec("vllm") is None:
        raise ValueError("the recipe has a [vllm] section and vllm is not installed: ctpo[vllm]")
    return problems(recipe)


def policy_path(
    recipe: Recipe, sandbox: Sandbox, cache: Path, listener: Listener, watch: Stopwatch
) -> str:
    """Return where the policy to train is, after warm-starting a tiny one if need be."""
    if recipe.model.path is not None:
        return recipe.model.path
    assert recipe.warm_start is not None, "the recipe has been checked"
    listener.phase("warm start", None)

    def show(now: warm_start.Progress) -> None:
        listener.progress(now.step, now.steps, loss=now.loss, accuracy=now.accuracy)

    with watch.time("warm start"):
        return str(warm_start.warm_start(recipe, sandbox, cache, show))


def load_policy(
    recipe: Recipe, sandbox: Sandbox, cache: Path, listener: Listener, watch: Stopwatch
) -> tuple[PreTrainedModel, Tokenizer]:
    """Return the policy to train and its tokenizer, warm-starting a tiny one if need be."""
    path = policy_path(recipe, sandbox, cache, listener, watch)
    return load_model(path, torch.bfloat16 if frozen_in_bfloat16(recipe) else torch.float32)


class Evaluator:
    """Measures held-out accuracy, sampled and greedy, and writes it to the run directory."""

    def __init__(
        self,
        recipe: Recipe,
        held_out: Sequence[Problem],
        tokenizer: Tokenizer,
        sandbox: Sandbox,
        directory: RunDirectory,
        listener: Listener,
        watch: Stopwatch,
    ) -> None:
        self._recipe = recipe
        self._held_out = held_out
        self._tokenizer = tokenizer
        self._sandbox = sandbox
        self._directory = directory
        self._listener = listener
        self._watch = watch

    def __call__(self, name: str, batch: int, generator: Generator) -> None:
        """Evaluate what `generator` samples from after `batch` batches; write it as `name`."""
        with self._watch.time("evaluation"):
            settings = self._recipe.evaluation
            sampled, greedy = measure(
                generator,
                self._tokenizer,
                self._sandbox,
                self._held_out,
                episode_settings(self._recipe),
                samples_per_problem=settings.samples_per_problem,
                temperature=settings.temperature,
                batch_size=settings.batch_size,
                seed=self._recipe.seed,
                listener=self._listener,
            )
        self._directory.add_evaluation(name, batch, sampled, greedy)
