"""Evaluating any model, trained here or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ctpo.evaluation import Evaluation
from ctpo.sandbox import Sandbox
from ctpo.tasks import generate, read_problems
from ctpo.tir import EpisodeSettings
from ctpo.training.libraries import quiet_libraries
from ctpo.training.listening import Listener
from ctpo.training.models import load_model
from ctpo.training.policy import episode_settings, measure
from ctpo.training.run_directory import RunDirectory


@dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate.

    Attributes:
        model: A run directory, a model directory or a Hub name.
        data: `builtin`, a file in verl's schema, or a Hub name.
        problems: Most problems to ask.
        samples_per_problem: Sampled answers per problem.
        temperature: Of the sampled answers.
        hard_fraction: Share of built-in problems with three-digit operands.
        max_response_tokens: None takes the run's, or 2048.
        max_calls: None takes the run's, or 4.
        seed: Of the sampling.
        batch_size: Episodes run side by side.
    """

    model: str
    data: str
    problems: int
    samples_per_problem: int
    temperature: float
    hard_fraction: float
    max_response_tokens: int | None
    max_calls: int | None
    seed: int
    batch_size: int


def evaluate_path(request: EvaluationRequest, listener: Listener) -> tuple[Evaluation, Evaluation]:
    """Return the accuracy of a model, sampled and greedy.

    Args:
        request: What to evaluate.
        listener: Hears how it goes.

    Raises:
        ModelNotFound: There is no such model.
        ValueError: The problems cannot be read, or an option has no effect.
        SandboxUnavailable: Programs cannot be isolated on this machine.
    """
    if request.temperature <= 0:
        raise ValueError(
            f"temperature is {request.temperature}; it must be above 0. Greedy accuracy is always "
            "measured beside"
        )
    if request.data == "builtin":
        asked = generate(
            request.problems, seed=0, hard_fraction=request.hard_fraction, split="held-out"
        )
    elif request.hard_fraction:
        raise ValueError("hard_fraction has no effect on problems from files")
    else:
        asked = read_problems(request.data, limit=request.problems)
    quiet_libraries()
    path, settings = _resolve(request)
    model, tokenizer = load_model(path)
    with Sandbox() as sandbox:
        return measure(
            model,
            tokenizer,
            sandbox,
            asked,
            settings,
            samples_per_problem=request.samples_per_problem,
            temperature=request.temperature,
            batch_size=request.batch_size,
            seed=request.seed,
            listener=listener,
        )


def _resolve(request: EvaluationRequest) -> tuple[str, EpisodeSettings]:
    """Return where the model lies and what an episode may use."""
    tokens, calls = request.max_response_tokens, request.max_calls
    if not (Path(request.model) / "recipe.toml").is_file():
        return request.model, EpisodeSettings(
            max_response_tokens=2048 if tokens is None else tokens,
            max_calls=4 if calls is None else calls,
        )
    run = RunDirectory.open(Path(request.model))
    if not run.model.is_dir():
        raise ValueError(
            f"{run.path} holds no trained model yet; evaluate a checkpoint's directory"
        )
    of_run = episode_settings(run.recipe)
    return str(run.model), EpisodeSettings(
        max_response_tokens=of_run.max_response_tokens if tokens is None else tokens,
        max_calls=of_run.max_calls if calls is None else calls,
        max_output_chars=of_run.max_output_chars,
        chat_template_kwargs=of_run.chat_template_kwargs,
    )
