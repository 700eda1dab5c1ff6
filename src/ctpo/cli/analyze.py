"""`ctpo analyze`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ctpo.cli.console import place, print_table, say, usable

if TYPE_CHECKING:
    from ctpo.objective import PositionStatistics
    from ctpo.report import Analysis


def command(
    file: Annotated[
        Path,
        typer.Argument(
            parser=place,
            metavar="FILE",
            help="A log of responses as TRL, verl or you wrote it (Parquet, JSONL, .pt, a "
            "save_to_disk directory), a run directory, or statistics by position.",
        ),
    ],
    preset: Annotated[
        str, typer.Option(help="Method whose window to count clipped tokens for.")
    ] = "ctpo",
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="A column's name in the file, e.g. logprobs=new_logprobs; tokens= leaves it out. "
            "Repeatable."
        ),
    ] = None,
    clip_rate: Annotated[
        float, typer.Option(help="Share of tokens on each side that the suggested window clips.")
    ] = 0.05,
    fit_power: Annotated[
        bool, typer.Option(help="Fit the suggested window's exponent too, not take 0.5.")
    ] = False,
    on_policy: Annotated[
        bool,
        typer.Option(help="The policy should not have moved yet: exit with 1 if log-probs differ."),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--output", "--out", help="Draw the figures into this directory.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with all of it here.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all of it as JSON instead of text.")
    ] = False,
) -> None:
    """Say in words whether ratios and log-probs are as they should be, and what to do if not."""
    from ctpo.objective import ObjectiveSpec
    from ctpo.report import ReportError, analyze, analyze_run, holds_positions, write_analysis

    with usable(ReportError, ValueError):
        if (file / "recipe.toml").is_file() or holds_positions(file):
            given = {"--preset": preset != "ctpo", "--column": column, "--on-policy": on_policy}
            given |= {"--clip-rate": clip_rate != 0.05, "--fit-power": fit_power}
            for option in (name for name, is_given in given.items() if is_given):
                raise ValueError(
                    f"{option} needs log-probs after updates; {file} holds statistics by position, "
                    "which are of the objective that was trained with"
                )
            analyses = analyze_run(file)
        else:
            names = _names(column or [])
            power = None if fit_power else 0.5
            analyses = [
                analyze(
                    file,
                    ObjectiveSpec(preset).build(),
                    names=names,
                    clip_rate=clip_rate,
                    power=power,
                    on_policy=on_policy,
                )
            ]
    if as_json:
        typer.echo(json.dumps([one.to_dict() for one in analyses], indent=2, allow_nan=False))
    else:
        for analysis in analyses:
            _show(analysis)
    lines = []
    with usable(OSError, ValueError):
        if out is not None:
            lines += [("figure", str(path)) for path in analyses[-1].draw(out)]
        if html is not None:
            write_analysis(analyses, html)
            lines.append(("page", str(html)))
    if not as_json:
        for name, text in lines:
            _say(name, text)
    if on_policy and not analyses[0].agrees:
        typer.echo("NOT on-policy: new and old log-probs differ", err=as_json)
        raise typer.Exit(1)


def _show(analysis: Analysis) -> None:
    from ctpo.report.analysis import MARKS

    say(f"{analysis.title}\n")
    for one in analysis.verdict:
        _say(f"{MARKS[one.state]} {one.about}", one.words)
        if one.advice:
            _say("", f"→ {one.advice}")
    print_table(_by_position(analysis))
    if analysis.statistics is not None:
        print_table(_quantiles(analysis.statistics))
    if analysis.window:
        _say("window", analysis.window)


def _by_position(analysis: Analysis) -> Table:
    from ctpo.report.analysis import HEADINGS

    title = "log ρ by position, share clipped, effective sample"
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1))
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for line in analysis.lines():
        table.add_row(*line)
    return table


def _quantiles(statistics: PositionStatistics) -> Table:
    table = Table(title="Quantiles over all positions", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "1 %", "5 %", "median", "95 %", "99 %"):
        table.add_column(heading, justify="right")
    shares = (0.01, 0.05, 0.5, 0.95, 0.99)
    table.add_row("log ρ", *(f"{x:+z.4f}" for x in statistics.quantiles(shares)))
    table.add_row("log r", *(f"{x:+z.4f}" for x in statistics.quantiles(shares, of="log_r")))
    return table


def _say(name: str, text: str) -> None:
    say(f"{name:<12} {text}")


def _names(given: Sequence[str]) -> dict[str, str]:
    names: dict[str, str] = {}
    for text in given:
        ours, equals, theirs = text.partition("=")
        if not equals or not ours:
            raise ValueError(f"--column {text!r} is not of the form logprobs=NAME")
        if ours in names:
            raise ValueError(f"--column names {ours} twice: {names[ours]} and {theirs}")
        names[ours] = theirs
    return names
