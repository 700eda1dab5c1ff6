"""`ctpo analyze`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ctpo.cli.console import console, print_table, usable

if TYPE_CHECKING:
    from ctpo.report import PositionAnalysis
    from ctpo.report.positions import SpreadFit


def command(
    file: Annotated[
        Path,
        typer.Argument(
            help="A Parquet file or a directory of them, one response a row, with the columns "
            "logprobs, old_logprobs, mask (lists) and advantages (a number or a list); or the "
            "statistics by position that an engine wrote, to which only --out applies."
        ),
    ],
    preset: Annotated[
        str, typer.Option(help="Method whose window to count clipped tokens for.")
    ] = "ctpo",
    column: Annotated[
        list[str] | None,
        typer.Option(help="A column's name in the file, e.g. logprobs=new_logprobs. Repeatable."),
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
) -> None:
    """Say what the ratios of logged rollouts do, by position, whatever trainer logged them."""
    from ctpo.objective import ObjectiveSpec
    from ctpo.report import ReportError, analyze, analyze_positions, holds_positions

    with usable(ReportError, ValueError):
        if holds_positions(file):
            given = {"--preset": preset != "ctpo", "--column": column, "--on-policy": on_policy}
            given |= {"--clip-rate": clip_rate != 0.05, "--fit-power": fit_power}
            for option in (name for name, is_given in given.items() if is_given):
                raise ValueError(
                    f"{option} needs log-probs; {file} holds statistics by position, which are of "
                    "the objective that was trained with"
                )
            _show_positions(analyze_positions(file), out)
            return
    with usable(ReportError, ValueError):
        analysis = analyze(
            file,
            ObjectiveSpec(preset).build(),
            names=dict(_pair(text) for text in column or []),
            clip_rate=clip_rate,
            power=None if fit_power else 0.5,
        )
    statistics = analysis.statistics
    summary = statistics.summary()
    sequences, tokens = int(statistics.sequences), int(statistics.tokens.sum())
    console.print(f"{sequences} responses, {tokens} policy tokens; clips as {preset}\n")
    print_table(_by_position(analysis.table()))

    shares = (0.01, 0.05, 0.5, 0.95, 0.99)
    rho, r = statistics.quantiles(shares), statistics.quantiles(shares, of="log_r")
    table = Table(title="Quantiles over all positions", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "1 %", "5 %", "median", "95 %", "99 %"):
        table.add_column(heading, justify="right")
    table.add_row("log ρ", *(f"{x:+.4f}" for x in rho))
    table.add_row("log r", *(f"{x:+.4f}" for x in r))
    print_table(table)

    lines = _pooled(summary, analysis.spread)
    kl = f"{summary['kl/k1']:.4f} (k1), {summary['kl/k3']:.4f} (k3) nats a response"
    lines.insert(1, ("KL(old‖new)", kl))
    if isinstance(analysis.calibration, str):
        lines.append(("window", f"none suggested: {analysis.calibration}"))
    else:
        window, made = analysis.calibration.window, analysis.calibration
        lines.append(
            (
                "window",
                f"eps_low={window.eps_low:.4g} eps_high={window.eps_high:.4g} "
                f"dual_clip={window.dual_clip:.4g} power={window.power:.3g} clips "
                f"{made.clip_high:.1%} of A>0 above, {made.clip_low:.1%} and "
                f"{made.clip_dual:.1%} of A<0 below and above",
            )
        )
    if on_policy:
        lines.append(("on-policy", str(analysis.on_policy)))
    _say(lines)
    if out is not None:
        _say([("figure", str(path)) for path in analysis.draw(out)])
    if on_policy and not analysis.on_policy.passes:
        raise typer.Exit(1)


def _show_positions(analysis: PositionAnalysis, out: Path | None) -> None:
    tokens = int(analysis.columns["tokens"].sum())
    console.print(f"{len(analysis.positions.batches)} batches, {tokens} policy tokens\n")
    print_table(_by_position(analysis.table()))
    _say(_pooled(analysis.summary(), analysis.spread))
    if out is not None:
        _say([("figure", str(path)) for path in analysis.draw(out)])


def _by_position(rows: Sequence[Mapping[str, float]]) -> Table:
    table = Table(
        title="log ρ by position, share clipped, effective sample", box=SIMPLE_HEAD, padding=(0, 1)
    )
    for heading in ("t", "tokens", "mean", "std", "min", "max", "high", "low", "dual", "ess"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        first, last = int(row["first"]), int(row["last"])
        table.add_row(
            str(first) if first == last else f"{first}–{last}",
            str(int(row["tokens"])),
            f"{row['mean']:.3f}",
            f"{row['std']:.3f}",
            *(f"{row[name]:.2f}" for name in ("min", "max")),
            *(f"{row[name]:.1%}" for name in ("high", "low", "dual")),
            f"{row['ess']:.0%}",
        )
    return table


def _pooled(summary: Mapping[str, float], spread: SpreadFit | None) -> list[tuple[str, str]]:
    lines = [
        (
            "clipped",
            f"high {summary['clip/high']:.2%}, low {summary['clip/low']:.2%}, "
            f"dual {summary['clip/dual']:.2%} of all tokens",
        ),
        ("effective sample", f"{summary['ess']:.1%} of the tokens"),
    ]
    if spread is not None:
        lines.append(
            (
                "spread",
                f"std(log ρ) = {spread.sigma:.4f}·√t; with the exponent free, t^{spread.power:.2f}",
            )
        )
    return lines


def _say(lines: Sequence[tuple[str, str]]) -> None:
    for name, text in lines:
        console.print(f"{name:<17} {text}", soft_wrap=True, highlight=False)


def _pair(text: str) -> tuple[str, str]:
    ours, equals, theirs = text.partition("=")
    if not equals or not ours or not theirs:
        raise ValueError(f"--column {text!r} is not of the form logprobs=NAME")
    return ours, theirs
