"""Evaluating any model: one trained here, one from elsewhere, one behind a server."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from ctpo.evaluation.answers import Question
from ctpo.evaluation.asking import BatchModel, Model, ServerModel, answer_all
from ctpo.evaluation.directory import EvaluationDirectory
from ctpo.evaluation.summary import check_ks, default_ks, markdown, summarize
from ctpo.sandbox import Sandbox
from ctpo.tasks import Problem, generate, load_benchmark, read_problems
from ctpo.tir import EpisodeSettings
from ctpo.tir.conversation import Template
from ctpo.tir.endpoint import Api, Endpoint
from ctpo.tir.protocols import FENCE, ToolProtocol, protocol
from ctpo.tir.transformers_generator import TransformersGenerator
from ctpo.training.libraries import quiet_libraries
from ctpo.training.listening import Listener
from ctpo.training.models import load_model
from ctpo.training.policy import (
    EpisodePolicy,
    batch_seed,
    episode_settings,
    instruct,
    start_sandbox,
)
from ctpo.training.problems import benchmark_names
from ctpo.training.recipe import Recipe
from ctpo.training.run_directory import RunDirectory

logger = logging.getLogger(__name__)

# Of a model without a run.
_USUAL: dict[str, Any] = {
    "data": "builtin",
    "problems": 128,
    "samples": 4,
    "temperature": 1.0,
    "hard_fraction": 0.0,
    "max_response_tokens": 2048,
    "max_calls": 4,
    "chat_template_kwargs": {},
}


@dataclass(frozen=True)
class Server:
    """An OpenAI-compatible server.

    Attributes:
        url: Its address.
        api: `chat` or `completions`.
        tokenizer: Whose chat template makes the prompts of the completions API: a directory or a
            Hub name.
        key_variable: Environment variable that holds the key, if the server wants one.
        concurrency: Episodes side by side.
        retries: How often a failed request is repeated.
        timeout: Seconds of silence after which a request counts as failed.
        extra: More fields for every request.
    """

    url: str
    api: Api = "chat"
    tokenizer: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 16
    retries: int = 8
    timeout: float = 600.0
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate. What is None is as in the run, or as said here where there is no run.

    Attributes:
        model: A run directory, a model directory, a Hub name, or the model's name on a server.
        benchmarks: Names of registered benchmarks, each perhaps `name=path`.
        data: Instead of benchmarks, `builtin`, a file in verl's schema, or a Hub name; `builtin`.
        revision: Of the benchmarks on the Hub, instead of the pinned ones.
        problems: Most problems to ask of each; all of a benchmark, 128 of other data.
        samples: Answers per problem; 4.
        ks: The k of pass@k and maj@k; powers of two up to `samples`.
        temperature: Of the sampling, 0 for greedy; 1.
        hard_fraction: Share of built-in problems with three-digit operands; 0.
        protocol: How the tool is called; the run's own, or `fence`.
        instructions: Whether the protocol is explained in a system message. If None it is, except
            for a run, whose recipe says what its model was told, and for built-in problems put to a
            model loaded here.
        max_response_tokens: Most tokens of a response; 2048.
        max_calls: Most programs in a response; 4.
        chat_template_kwargs: Given to the chat template; nothing.
        seed: Of the sampling.
        batch_size: Episodes side by side, of a model loaded here.
        server: Where the model is, unless it is loaded here.
    """

    model: str
    benchmarks: Sequence[str] = ()
    data: str | None = None
    revision: str | None = None
    problems: int | None = None
    samples: int | None = None
    ks: Sequence[int] = ()
    temperature: float | None = None
    hard_fraction: float | None = None
    protocol: str | None = None
    instructions: bool | None = None
    max_response_tokens: int | None = None
    max_calls: int | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    seed: int = 0
    batch_size: int = 64
    server: Server | None = None


def evaluate_request(request: EvaluationRequest, output: Path, listener: Listener) -> str:
    """Answer, grade and summarize; returns the summary's Markdown.

    `output` receives every answer as it comes, and in the end `summary.json`, `summary.md` and
    `answers.parquet`. With the same request the work goes on where it was left.

    Args:
        request: What to evaluate.
        output: The evaluation's directory.
        listener: Hears how it goes.

    Raises:
        ModelNotFound: There is no such model.
        FileNotFoundError: There is no such file of problems, or a benchmark cannot be reached.
        ValueError: The problems cannot be read, an option has no effect, or `output` belongs to
            another evaluation.
        EndpointError: The server cannot be used. What it answered before is kept.
        SandboxUnavailable: Programs cannot be isolated on this machine.
    """
    run = None if request.server else _run(request.model)
    recipe = None if run is None else run.recipe
    chosen = _choose(request, recipe)
    ks = list(request.ks) or default_ks(chosen["samples"])
    check_ks(ks, chosen["samples"])
    by_name, sources = _problems(request, chosen)
    told = _instructions(request, recipe)
    questions = [
        Question.of(name, instruct(problem, told), sample, request.seed)
        for name, problems in by_name.items()
        for problem in problems
        for sample in range(chosen["samples"])
    ]
    episode = {
        name: chosen[name] for name in ("max_response_tokens", "max_calls", "chat_template_kwargs")
    }
    settings = EpisodeSettings(**episode)
    if recipe is not None:
        settings = replace(episode_settings(recipe), **episode)
    settings = replace(settings, protocol=_protocol(request, recipe))
    endpoint = None if request.server is None else _endpoint(request.model, request.server)
    if endpoint is not None and not (output / "settings.json").is_file():
        endpoint.models()  # whether anybody is there, before a directory is made
    template = None if request.server is None else _template(request.server, settings)
    with EvaluationDirectory(output, _settings(request, chosen, settings, sources, told)) as kept:
        listener.phase("evaluation", len(questions))
        if any(question.key not in kept.answers for question in questions):
            with _sandbox(recipe) as sandbox:
                model: Model
                if endpoint is None or request.server is None:
                    model = _batch_model(request, run, sandbox, settings, chosen["temperature"])
                else:
                    model = ServerModel(
                        endpoint,
                        sandbox,
                        settings,
                        temperature=chosen["temperature"],
                        concurrency=request.server.concurrency,
                        template=template,
                    )
                answer_all(questions, model, kept, lambda done, _all: listener.progress(done))
        summary = {"model": request.model} | summarize(
            list(kept.answers.values()), sources, ks, seed=request.seed
        )
        _warn(summary, chosen)
        text = markdown(summary)
        kept.write_parquet()
        kept.write("summary.json", json.dumps(summary, indent=2) + "\n")
        kept.write("summary.md", text)
    return text


def _choose(request: EvaluationRequest, recipe: Recipe | None) -> dict[str, Any]:
    asked = {name: value for name, value in asdict(request).items() if value is not None}
    chosen = _USUAL | _of_run(recipe) | {name: asked[name] for name in _USUAL if name in asked}
    if request.benchmarks and request.data is not None:
        raise ValueError("give either benchmarks or data, not both")
    if request.benchmarks:
        chosen["problems"] = request.problems
    if chosen["temperature"] < 0:
        raise ValueError(f"temperature is {chosen['temperature']}; it must be 0 (greedy) or more")
    if chosen["temperature"] == 0 and request.samples is None:
        chosen["samples"] = 1
    if chosen["temperature"] == 0 and chosen["samples"] > 1:
        raise ValueError(
            f"samples is {chosen['samples']} at temperature 0; greedy answers to a problem are all "
            "the same, so it must be 1"
        )
    if request.hard_fraction is not None and (request.benchmarks or chosen["data"] != "builtin"):
        raise ValueError("hard_fraction has an effect on built-in problems only")
    if request.revision is not None and not request.benchmarks:
        raise ValueError("revision has an effect on benchmarks only")
    return chosen


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
        "samples": recipe.evaluation.samples_per_problem,
        "temperature": recipe.evaluation.temperature,
        "hard_fraction": recipe.data.hard_fraction,
        "max_response_tokens": recipe.rollout.max_response_tokens,
        "max_calls": recipe.rollout.max_calls,
        "chat_template_kwargs": recipe.model.chat_template_kwargs,
    }


def _problems(
    request: EvaluationRequest, chosen: Mapping[str, Any]
) -> tuple[dict[str, Sequence[Problem]], dict[str, dict[str, Any]]]:
    """Return problems by benchmark, and where each benchmark is from."""
    # What a run was evaluated on may be benchmarks too.
    names = request.benchmarks or benchmark_names(chosen["data"])
    if names:
        loaded = [
            load_benchmark(name, revision=request.revision, limit=chosen["problems"])
            for name in dict.fromkeys(names)
        ]
        if len({one.name for one in loaded}) < len(loaded):
            raise ValueError(f"a benchmark is named twice in {', '.join(names)}")
        return (
            {one.name: one.problems for one in loaded},
            {one.name: {"source": one.source, "revision": one.revision} for one in loaded},
        )
    data = chosen["data"]
    if data == "builtin":
        problems = generate(
            chosen["problems"], seed=0, hard_fraction=chosen["hard_fraction"], split="held-out"
        )
    else:
        problems = read_problems(data, limit=chosen["problems"])
    groups: dict[str, Sequence[Problem]] = {
        "builtin" if data == "builtin" else Path(data).stem: problems
    }
    return groups, {name: {"source": data, "revision": None} for name in groups}


def _instructions(request: EvaluationRequest, recipe: Recipe | None) -> str | None:
    """Return the system message: the protocol's, or what the run's model was trained under."""
    if request.instructions is False:
        return None
    if request.instructions is None and request.protocol is None:
        if recipe is not None:
            return recipe.system_message
        if request.server is None and not request.benchmarks and request.data in (None, "builtin"):
            return None
    return _protocol(request, recipe).instructions


def _protocol(request: EvaluationRequest, recipe: Recipe | None) -> ToolProtocol:
    """Return the protocol asked for, the run's own, or `fence`."""
    run = FENCE.name if recipe is None else recipe.rollout.protocol
    return protocol(request.protocol or run)


def _settings(
    request: EvaluationRequest,
    chosen: Mapping[str, Any],
    settings: EpisodeSettings,
    sources: Mapping[str, Any],
    told: str | None,
) -> dict[str, Any]:
    """Return everything that decides the answers: what a resumed evaluation must agree on."""
    server = request.server
    return {
        "model": request.model,
        # Not the address: the same model may go on answering elsewhere.
        "api": None if server is None else server.api,
        "request_fields": {} if server is None else dict(server.extra),
        "benchmarks": sources,
        "problems": chosen["problems"],
        "samples": chosen["samples"],
        "temperature": chosen["temperature"],
        "hard_fraction": chosen["hard_fraction"] if chosen["data"] == "builtin" else None,
        "seed": request.seed,
        "batch_size": request.batch_size if server is None else None,
        "protocol": settings.protocol.label,
        "instructions": told,
        "max_response_tokens": settings.max_response_tokens,
        "max_calls": settings.max_calls,
        "max_output_chars": settings.max_output_chars,
        "chat_template_kwargs": settings.chat_template_kwargs,
    }


def _sandbox(recipe: Recipe | None) -> AbstractContextManager[Sandbox]:
    return Sandbox() if recipe is None else start_sandbox(recipe)


def _batch_model(
    request: EvaluationRequest,
    run: RunDirectory | None,
    sandbox: Sandbox,
    settings: EpisodeSettings,
    temperature: float,
) -> BatchModel:
    quiet_libraries()
    if run is not None and run.recipe.threads is not None:
        torch.set_num_threads(run.recipe.threads)
    model, tokenizer = load_model(request.model if run is None else run.model)
    policy = EpisodePolicy(
        TransformersGenerator(model, tokenizer),
        tokenizer,
        sandbox,
        settings,
        temperature=temperature,
        seed=request.seed,
    )
    return BatchModel(policy, lambda index: batch_seed(request.seed, index), request.batch_size)


def _endpoint(model: str, server: Server) -> Endpoint:
    return Endpoint(
        server.url,
        model,
        api=server.api,
        key=os.environ.get(server.key_variable),
        retries=server.retries,
        timeout=server.timeout,
        extra=server.extra,
    )


def _template(server: Server, settings: EpisodeSettings) -> Template | None:
    if server.api == "chat":
        if server.tokenizer is not None:
            raise ValueError("a tokenizer has no effect on the chat API: the server has its own")
        if settings.chat_template_kwargs:
            raise ValueError(
                "chat_template_kwargs have no effect on a server's chat API; servers that take "
                'them do so as a request field: {"chat_template_kwargs": {...}}'
            )
        return None
    if server.tokenizer is None:
        raise ValueError(
            "the completions API takes a text, so the chat template is needed: name its tokenizer"
        )
    tokenizer = AutoTokenizer.from_pretrained(server.tokenizer)
    return lambda messages: tokenizer.apply_chat_template(
        [dict(message) for message in messages],
        tokenize=False,
        add_generation_prompt=True,
        **settings.chat_template_kwargs,
    )


def _warn(summary: Mapping[str, Any], chosen: Mapping[str, Any]) -> None:
    for name, benchmark in summary["benchmarks"].items():
        if chosen["samples"] > 1 and benchmark["beside"]["distinct"] == 0:
            logger.warning(
                "%s: all %d answers to each problem are the same, at temperature %g: the server "
                "does not sample. `transformers serve` samples only if the model's "
                "generation_config.json says do_sample",
                name,
                chosen["samples"],
                chosen["temperature"],
            )
