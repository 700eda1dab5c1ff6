"""Evaluating any model, trained here or not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from ctpo.evaluation import Evaluation
from ctpo.sandbox import Sandbox
from ctpo.tasks import Problem, generate, read_problems
from ctpo.tir import EpisodeSettings
from ctpo.tir.transformers_generator import TransformersGenerator
from ctpo.training.libraries import quiet_libraries
from ctpo.training.listening import Listener
from ctpo.training.models import load_model
from ctpo.training.policy import episode_settings, instruct, measure, start_sandbox
from ctpo.training.recipe import Recipe
from ctpo.training.run_directory import RunDirectory

T = TypeVar("T")

_OTHERWISE = EpisodeSettings(max_response_tokens=2048, max_calls=4)  # of a model without a run


@dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate. What is None is as in the run, or as said here where there is no run.

    Attributes:
        model: A run directory, a model directory or a Hub name.
        data: `builtin`, a file in verl's schema, or a Hub name; `builtin`.
        problems: Most problems to ask; 128.
        samples_per_problem: Sampled answers per problem; 4.
        temperature: Of the sampled answers; 1.
        hard_fraction: Share of built-in problems with three-digit operands; 0.
        max_response_tokens: Most tokens of a response; 2048.
        max_calls: Most programs in a response; 4.
        chat_template_kwargs: Given to the chat template; nothing.
        seed: Of the sampling.
        batch_size: Episodes run side by side.
    """

    model: str
    data: str | None = None
    problems: int | None = None
    samples_per_problem: int | None = None
    temperature: float | None = None
    hard_fraction: float | None = None
    max_response_tokens: int | None = None
    max_calls: int | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    seed: int = 0
    batch_size: int = 64


def evaluate_path(request: EvaluationRequest, listener: Listener) -> tuple[Evaluation, Evaluation]:
    """Return the accuracy of a model, sampled and greedy.

    Args:
        request: What to evaluate.
        listener: Hears how it goes.

    Raises:
        ModelNotFound: There is no such model.
        FileNotFoundError: There is no such file of problems.
        ValueError: The problems cannot be read, or an option has no effect.
        SandboxUnavailable: Programs cannot be isolated on this machine.
    """
    run = _run(request.model)
    recipe = None if run is None else run.recipe
    temperature = _first(request.temperature, recipe and recipe.evaluation.temperature, 1.0)
    if temperature <= 0:
        raise ValueError(
            f"temperature is {temperature}; it must be above 0. Greedy accuracy is always measured "
            "beside"
        )
    asked = _problems(request, recipe)
    quiet_libraries()
    if recipe is not None and recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    model, tokenizer = load_model(request.model if run is None else run.model)
    with Sandbox() if recipe is None else start_sandbox(recipe) as sandbox:
        return measure(
            TransformersGenerator(model, tokenizer),
            tokenizer,
            sandbox,
            asked,
            _episode(request, recipe),
            samples_per_problem=_first(
                request.samples_per_problem, recipe and recipe.evaluation.samples_per_problem, 4
            ),
            temperature=temperature,
            batch_size=request.batch_size,
            seed=request.seed,
            listener=listener,
        )


def _run(model: str) -> RunDirectory | None:
    if not (Path(model) / "recipe.toml").is_file():
        return None
    run = RunDirectory.open(Path(model))
    if not run.model.is_dir():
        raise ValueError(f"{model} holds no trained model yet; evaluate one of its checkpoints")
    return run


def _problems(request: EvaluationRequest, recipe: Recipe | None) -> list[Problem]:
    data = None if recipe is None else recipe.data
    source = _first(request.data, data and data.held_out, "builtin")
    count = _first(request.problems, data and data.held_out_problems, 128)
    if source == "builtin":
        hard = _first(request.hard_fraction, data and data.hard_fraction, 0.0)
        problems = generate(count, seed=0, hard_fraction=hard, split="held-out")
    elif request.hard_fraction is not None:
        raise ValueError("hard_fraction has no effect on problems from files")
    else:
        problems = read_problems(source, limit=count)
    return [instruct(problem, data and data.instructions) for problem in problems]


def _episode(request: EvaluationRequest, recipe: Recipe | None) -> EpisodeSettings:
    settings = _OTHERWISE if recipe is None else episode_settings(recipe)
    asked: dict[str, Any] = {
        "max_response_tokens": request.max_response_tokens,
        "max_calls": request.max_calls,
        "chat_template_kwargs": request.chat_template_kwargs,
    }
    return replace(settings, **{name: value for name, value in asked.items() if value is not None})


def _first(asked: T | None, of_run: T | None, otherwise: T) -> T:
    """Return what was asked for, else what the run has, else what is usual."""
    return asked if asked is not None else of_run if of_run is not None else otherwise
