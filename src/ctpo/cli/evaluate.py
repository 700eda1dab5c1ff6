"""`ctpo eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from ctpo.cli.console import Bars, console, usable


def command(
    model: Annotated[str, typer.Argument(help="A run directory, a model directory or a Hub name.")],
    data: Annotated[
        str, typer.Option(help="builtin, a Parquet or JSONL file in verl's schema, or a Hub name.")
    ] = "builtin",
    problems: Annotated[int, typer.Option(min=1, help="Most problems to ask.")] = 128,
    samples: Annotated[int, typer.Option(min=1, help="Sampled answers per problem: avg@k.")] = 4,
    temperature: Annotated[float, typer.Option(help="Of the sampled answers.")] = 1.0,
    hard_fraction: Annotated[
        float, typer.Option(help="Share of built-in problems with three-digit operands.")
    ] = 0.0,
    max_response_tokens: Annotated[
        int | None, typer.Option(min=1, help="[default: the run's, or 2048]")
    ] = None,
    max_calls: Annotated[
        int | None, typer.Option(min=0, help="Programs per answer. [default: the run's, or 4]")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sampling.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Episodes side by side.")] = 256,
    output: Annotated[Path | None, typer.Option(help="Write the result here as JSON.")] = None,
) -> None:
    """Measure a model's accuracy, sampled (avg@k) and greedy."""
    from ctpo.sandbox import SandboxUnavailable
    from ctpo.tir import SandboxFailure
    from ctpo.training.evaluating import EvaluationRequest, evaluate_path

    request = EvaluationRequest(
        model=model,
        data=data,
        problems=problems,
        samples_per_problem=samples,
        temperature=temperature,
        hard_fraction=hard_fraction,
        max_response_tokens=max_response_tokens,
        max_calls=max_calls,
        seed=seed,
        batch_size=batch_size,
    )
    with usable(FileNotFoundError, ValueError, SandboxFailure, SandboxUnavailable):
        with Bars() as bars:
            sampled, greedy = evaluate_path(request, bars)
    table = Table("problems", f"avg@{samples}, sampled", "greedy", "unknown")
    for source in [None, *sampled.by_source]:
        one = sampled.overall if source is None else sampled.by_source[source]
        other = greedy.overall if source is None else greedy.by_source[source]
        table.add_row(
            source or "all",
            f"{one.mean:.1%} [{one.low:.1%}, {one.high:.1%}]",
            f"{other.mean:.1%}",
            str(one.unknown + other.unknown),
        )
    console.print(table)
    if output is not None:
        content = {"sampled": sampled.to_dict(), "greedy": greedy.to_dict()}
        output.write_text(json.dumps(content, indent=2) + "\n")
