"""Evaluating any model: one trained here, one from elsewhere, one behind a server."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from ctpo.evaluation.answers import questions
from ctpo.evaluation.asking import BatchModel, Model, ServerModel, answer_all
from ctpo.evaluation.directory import EvaluationDirectory
from ctpo.evaluation.rewards import Rewards
from ctpo.evaluation.summary import check_ks, default_ks, keep_summary, markdown
from ctpo.sandbox import Sandbox
from ctpo.tasks import BUILTIN
from ctpo.tir import EpisodeSettings
from ctpo.tir.rendering import render
from ctpo.tir.server.endpoint import Endpoint
from ctpo.tir.server.episodes import Template
from ctpo.tir.transformers_generator import TransformersGenerator
from ctpo.training.evaluating.request import (
    EvaluationRequest,
    Server,
    choose,
    chosen_protocol,
    find_run,
    instructions,
    load_problems,
)
from ctpo.training.listening import Listener
from ctpo.training.models import load_model, load_tokenizer, quiet_libraries
from ctpo.training.policy import (
    episode_policy,
    episode_settings,
    instruct,
    start_sandbox,
)
from ctpo.training.run_directory import RunDirectory

logger = logging.getLogger(__name__)


def evaluate_request(request: EvaluationRequest, output: Path, listener: Listener) -> str:
    """Answer, grade and summarize; returns the summary's Markdown.

    `output` receives every answer as it comes, and in the end `summary.json`, `summary.md` and
    `answers.parquet`. With the same request the work goes on where it was left.

    Args:
        request: What to evaluate.
        output: The evaluation's directory.
        listener: Is told how far it is.

    Raises:
        ModelNotFound: There is no such model.
        FileNotFoundError: There is no such file of problems, or a benchmark cannot be reached.
        ValueError: The problems cannot be read, an option has no effect, or `output` belongs to
            another evaluation.
        EndpointError: The server cannot be used. What it answered before is kept.
        SandboxUnavailable: Programs cannot be isolated on this machine.
    """
    run = None if request.server else find_run(request.model)
    recipe = None if run is None else run.recipe
    chosen = choose(request, recipe)
    ks = list(request.ks) or default_ks(chosen["samples"])
    check_ks(ks, chosen["samples"])
    by_run = "grade" if recipe is None else next(iter(recipe.rewards))
    reward = request.reward or by_run
    judge = Rewards({reward: 1.0}, "reward").first
    by_name, sources = load_problems(request, chosen)
    told = instructions(request, recipe)
    asked = [(name, instruct(one, told)) for name, group in by_name.items() for one in group]
    every = questions(asked, chosen["samples"], request.seed)
    episode = {
        name: chosen[name] for name in ("max_response_tokens", "max_calls", "chat_template_kwargs")
    }
    settings = EpisodeSettings(**episode)
    if recipe is not None:
        settings = replace(episode_settings(recipe), **episode)
    settings = replace(
        settings, protocol=chosen_protocol(request, recipe.rollout if recipe else None)
    )
    endpoint = None if request.server is None else _endpoint(request.model, request.server)
    begun = (output / "settings.json").is_file()
    if endpoint is not None and not begun:
        _find(endpoint)  # before a directory is made
    tokenizer = None if request.server is None else _tokenizer(request.server, settings)
    with EvaluationDirectory(
        output, _settings(request, chosen, settings, sources, told, reward)
    ) as kept:
        listener.phase("evaluation", len(every))
        if any(question.key not in kept.answers for question in every):
            if endpoint is not None and begun:
                _find(endpoint)
            with Sandbox() if recipe is None else start_sandbox(recipe.sandbox) as sandbox:
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
                        template=tokenizer and _template(tokenizer, settings),
                        count=tokenizer and _count(tokenizer),
                    )
                answer_all(every, model, kept, lambda done, _: listener.progress(done), judge)
        summary = keep_summary(kept, request.model, sources, ks, request.seed)
        _warn(summary, chosen)
    return markdown(summary)


def _settings(
    request: EvaluationRequest,
    chosen: Mapping[str, Any],
    settings: EpisodeSettings,
    sources: Mapping[str, Any],
    told: str | None,
    reward: str,
) -> dict[str, Any]:
    """Return everything that decides the answers: what a resumed evaluation must agree on."""
    server = request.server
    return {
        "model": request.model,
        **({} if reward == "grade" else {"reward": reward}),
        # Not the address: the same model may go on answering elsewhere.
        "api": None if server is None else server.api,
        "request_fields": {} if server is None else dict(server.extra),
        "benchmarks": sources,
        "problems": chosen["problems"],
        "samples": chosen["samples"],
        "temperature": chosen["temperature"],
        "hard_fraction": chosen["hard_fraction"] if chosen["data"] in BUILTIN else None,
        "seed": request.seed,
        "batch_size": request.batch_size if server is None else None,
        "protocol": settings.protocol.label,
        "instructions": told,
        "max_response_tokens": settings.max_response_tokens,
        "max_calls": settings.max_calls,
        "max_output_chars": settings.max_output_chars,
        "chat_template_kwargs": settings.chat_template_kwargs,
    }


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
    generator = TransformersGenerator(model, tokenizer)
    policy = episode_policy(generator, tokenizer, sandbox, settings, temperature)
    return BatchModel(policy, request.seed, request.batch_size)


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


def _find(endpoint: Endpoint) -> None:
    """See whether the server is there and has the model; not all of those that have it say so."""
    there = endpoint.models()
    if there and endpoint.model not in there:
        logger.warning(
            "%s names its models %s, not %s; some servers answer for any name",
            endpoint.url,
            ", ".join(there[:5]) + (" and more" if len(there) > 5 else ""),
            endpoint.model,
        )


def _tokenizer(server: Server, settings: EpisodeSettings) -> PreTrainedTokenizerBase | None:
    """Return the tokenizer whose template makes the prompts; None where the server makes them."""
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
    return load_tokenizer(server.tokenizer)


def _template(tokenizer: PreTrainedTokenizerBase, settings: EpisodeSettings) -> Template:
    return lambda messages: render(tokenizer, messages, settings.chat_template_kwargs)


def _count(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], int]:
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


def _warn(summary: Mapping[str, Any], chosen: Mapping[str, Any]) -> None:
    for name, benchmark in summary["benchmarks"].items():
        beside, answers = benchmark["beside"], benchmark["answers"]
        if chosen["samples"] > 1 and beside["distinct"] == 0:
            logger.warning(
                "%s: all %d answers to each problem are the same, at temperature %g: the server "
                "does not sample. `transformers serve` samples only if the model's "
                "generation_config.json says do_sample",
                name,
                chosen["samples"],
                chosen["temperature"],
            )
        if beside["failed"]:
            logger.warning(
                "%s: the server failed to give %d of %d answers, which are in no figure; the same "
                "command asks for them again. answers.jsonl has the reasons",
                name,
                round(beside["failed"] * answers),
                answers,
            )
        if beside["all_reasoning"]:
            logger.warning(
                "%s: the server sent the whole text of %d of %d answers as `reasoning` (kept in "
                "`turns` of answers.jsonl) and none as the answer, so there is nothing to grade: "
                "they were cut off while the model thought, or the server's reasoning parser does "
                "not fit the model",
                name,
                round(beside["all_reasoning"] * answers),
                answers,
            )
