"""`ctpo eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ctpo.cli.console import Bars, console, usable


def command(
    model: Annotated[str, typer.Argument(help="A run directory, a model directory or a Hub name.")],
    data: Annotated[
        str | None,
        typer.Option(
            help="builtin, a Parquet or JSONL file in verl's schema, or a Hub name. "
            "[default: the run's, or builtin]"
        ),
    ] = None,
    problems: Annotated[
        int | None, typer.Option(min=1, help="Most problems to ask. [default: the run's, or 128]")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="Answers per problem: the k of avg@k. [default: the run's, or 4]"),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Of the sampled answers. [default: the run's, or 1]")
    ] = None,
    hard_fraction: Annotated[
        float | None,
        typer.Option(
            help="Share of built-in problems with three-digit operands. [default: the run's, or 0]"
        ),
    ] = None,
    max_response_tokens: Annotated[
        int | None, typer.Option(min=1, help="[default: the run's, or 2048]")
    ] = None,
    max_calls: Annotated[
        int | None, typer.Option(min=0, help="Programs per answer. [default: the run's, or 4]")
    ] = None,
    chat_template_kwargs: Annotated[
        str | None,
        typer.Option(help="JSON for the chat template, such as '{\"enable_thinking\": false}'."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampling.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Episodes side by side.")] = 64,
    output: Annotated[Path | None, typer.Option(help="Write the result here as JSON.")] = None,
) -> None:
    """Measure a model's accuracy, sampled (avg@k) and greedy."""
    from ctpo.sandbox import SandboxUnavailable
    from ctpo.tir import SandboxFailure
    from ctpo.training.evaluating import EvaluationRequest, evaluate_path

    with usable(FileNotFoundError, ValueError, SandboxFailure, SandboxUnavailable):
        request = EvaluationRequest(
            model=model,
            data=data,
            problems=problems,
            samples_per_problem=samples,
            temperature=temperature,
            hard_fraction=hard_fraction,
            max_response_tokens=max_response_tokens,
            max_calls=max_calls,
            chat_template_kwargs=json.loads(chat_template_kwargs or "null"),
            seed=seed,
            batch_size=batch_size,
        )
        with Bars() as bars:
            sampled, greedy = evaluate_path(request, bars)
    table = Table("problems", f"avg@{sampled.samples_per_problem}, sampled", "greedy", "unknown")
    for source in [None, *sampled.by_source]:
        one = sampled.overall if source is None else sampled.by_source[source]
        other = greedy.overall if source is None else greedy.by_source[source]
        table.add_row(
            escape(source or "all"),
            f"{one.mean:.1%} [{one.low:.1%}, {one.high:.1%}]",
            f"{other.mean:.1%}",
            str(one.unknown + other.unknown),
        )
    console.print(table)
    if output is not None:
        content = {"sampled": sampled.to_dict(), "greedy": greedy.to_dict()}
        output.write_text(json.dumps(content, indent=2) + "\n")
