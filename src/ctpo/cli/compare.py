"""`ctpo compare`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ctpo.cli.console import print_markdown, say, usable


def command(
    first: Annotated[Path, typer.Argument(help="An evaluation's directory, or a training run's.")],
    second: Annotated[Path, typer.Argument(help="Another, on some of the same problems.")],
    output: Annotated[Path | None, typer.Option(help="Write the comparison here as JSON.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
) -> None:
    """Compare two evaluations problem by problem: the difference and its interval.

    Of two training runs, their recipes and their last held-out accuracy. To compare them on other
    problems, evaluate both first.

    Where a server failed to give answers, it says so and the exit code is 1: what is compared is
    not all of what was asked.
    """
    from ctpo.evaluation.directory import read_answers, read_settings
    from ctpo.evaluation.paired import (
        compare_answers,
        comparison_markdown,
        differing_settings,
        missing,
    )

    trained = [path for path in (first, second) if (path / "recipe.toml").is_file()]
    if len(trained) == 1:
        raise typer.BadParameter(
            f"{trained[0]} is a training run and the other is none; `ctpo eval {trained[0]}` makes "
            "an evaluation of it",
            param_hint="FIRST SECOND",
        )
    if trained:
        _compare_runs(first, second, output)
        return
    with usable(OSError, ValueError):
        before, after = (
            [answer.slim() for answer in read_answers(path)] for path in (first, second)
        )
        found = compare_answers(before, after, seed=seed)
        changes = differing_settings(read_settings(first), read_settings(second))
    for change in changes:
        say(f"- {change}")
    for path, answers in ((first, before), (second, after)):
        if lost := missing(answers):
            say(f"- {path}: {lost}")
    say("")
    for name, comparison in found.items():
        print_markdown(comparison_markdown(comparison, name))
    if output is not None:
        content = {
            name: asdict(one) | {"difference": one.difference.to_dict()}
            for name, one in found.items()
        }
        output.write_text(json.dumps(content, indent=2) + "\n")
    if any(answer.failed for answer in (*before, *after)):
        raise typer.Exit(1)


def _compare_runs(first: Path, second: Path, output: Path | None) -> None:
    from ctpo.report import ReportError, read_run
    from ctpo.report.overlay import comparison

    with usable(OSError, ReportError):
        lines = comparison(read_run(first), read_run(second))
        if output is not None:
            output.write_text(json.dumps(lines, ensure_ascii=False, indent=2) + "\n")
    for line in lines:
        say(f"- {line}")
