"""Evaluating any model, trained here or not."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

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

# Of a model without a run.
_USUAL: dict[str, Any] = {
    "data": "builtin",
    "problems": 128,
    "samples_per_problem": 4,
    "temperature": 1.0,
    "hard_fraction": 0.0,
    "max_response_tokens": 2048,
    "max_calls": 4,
    "chat_template_kwargs": {},
}


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
    asked = {name: value for name, value in asdict(request).items() if value is not None}
    chosen = _USUAL | _of_run(recipe) | asked
    if chosen["temperature"] <= 0:
        raise ValueError(
            f"temperature is {chosen['temperature']}; it must be above 0. Greedy accuracy is "
            "always measured beside"
        )
    if request.hard_fraction is not None and chosen["data"] != "builtin":
        raise ValueError("hard_fraction has no effect on problems from files")
    problems = _problems(chosen, None if recipe is None else recipe.data.instructions)
    quiet_libraries()
    if recipe is not None and recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    model, tokenizer = load_model(request.model if run is None else run.model)
    episode = {
        name: chosen[name] for name in ("max_response_tokens", "max_calls", "chat_template_kwargs")
    }
    settings = (
        EpisodeSettings(**episode)
        if recipe is None
        else replace(episode_settings(recipe), **episode)
    )
    with Sandbox() if recipe is None else start_sandbox(recipe) as sandbox:
        return measure(
            TransformersGenerator(model, tokenizer),
            tokenizer,
            sandbox,
            problems,
            settings,
            samples_per_problem=chosen["samples_per_problem"],
            temperature=chosen["temperature"],
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


def _of_run(recipe: Recipe | None) -> dict[str, Any]:
    """Return what the run's own recipe says of evaluation."""
    if recipe is None:
        return {}
    return {
        "data": recipe.data.held_out,
        "problems": recipe.data.held_out_problems,
        "samples_per_problem": recipe.evaluation.samples_per_problem,
        "temperature": recipe.evaluation.temperature,
        "hard_fraction": recipe.data.hard_fraction,
        "max_response_tokens": recipe.rollout.max_response_tokens,
        "max_calls": recipe.rollout.max_calls,
        "chat_template_kwargs": recipe.model.chat_template_kwargs,
    }


def _problems(chosen: dict[str, Any], instructions: str | None) -> list[Problem]:
    if chosen["data"] == "builtin":
        problems = generate(
            chosen["problems"], seed=0, hard_fraction=chosen["hard_fraction"], split="held-out"
        )
    else:
        problems = read_problems(chosen["data"], limit=chosen["problems"])
    return [instruct(problem, instructions) for problem in problems]
