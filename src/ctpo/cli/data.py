"""`ctpo data`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import typer

from ctpo.cli.console import say, usable


def command(
    source: Annotated[
        str,
        typer.Argument(
            help="builtin, builtin-chain, a Parquet or JSONL file, a Hub name, or benchmarks: "
            "aime25,brumo25."
        ),
    ],
    output: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    protocol: Annotated[
        Literal["fence", "hermes", "plain", "none"],
        typer.Option(help="Whose instructions problems get that have no system message."),
    ] = "fence",
    instructions: Annotated[
        str | None, typer.Option(help="A system message of your own instead of the protocol's.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Which part: needed of a Hub name that has several; of builtin train unless named."
        ),
    ] = None,
    problems: Annotated[
        int | None,
        typer.Option(min=1, help="Most problems; all unless named, of the built-in ones 2000."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Of built-in training problems; 0 unless named.")
    ] = None,
    hard_fraction: Annotated[
        float, typer.Option(help="Share of built-in problems with three-digit operands.")
    ] = 0.0,
    unique: Annotated[
        bool,
        typer.Option(
            "--unique",
            help="Leave out rows that repeat the question and answer of an earlier one.",
        ),
    ] = False,
    agent: Annotated[str, typer.Option(help="verl's agent loop that answers them.")] = "ctpo",
) -> None:
    """Write problems as verl reads them, each row checked."""
    from ctpo.disk import check_parquet_name
    from ctpo.tasks import write_verl_parquet
    from ctpo.training.problems import problems_of_source

    with usable(OSError, ValueError):
        check_parquet_name(output)  # before anything is read
        found = problems_of_source(
            source,
            problems,
            split,
            seed=seed,
            hard_fraction=hard_fraction,
            told=_told(protocol, instructions),
            unique=unique,
        )
        write_verl_parquet(output, found, agent)
    sources = Counter(problem.source for problem in found)
    counts = ", ".join(f"{count} of {name}" for name, count in sources.items())
    say(f"problems    {len(found)}: {counts}")
    say(f"written     {output}")


def _told(name: str, instructions: str | None) -> str | None:
    if instructions is not None or name == "none":
        return instructions
    from ctpo.tir.protocols import protocol

    return protocol(name).instructions
