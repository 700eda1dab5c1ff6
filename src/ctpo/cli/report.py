"""`ctpo report`, `ctpo runs` and `ctpo watch`: looking at training runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live
from rich.table import Table

from ctpo.cli.console import console, say, usable


def command(
    runs: Annotated[list[Path], typer.Argument(help="A run directory, or several to overlay.")],
    output: Annotated[
        Path | None,
        typer.Option(help="The page of several runs. (default: overlay.html beside the first)"),
    ] = None,
) -> None:
    """Draw a run's figures and its report anew from its directory; of several, one page of all."""
    from ctpo.report import ReportError, write_overlay, write_report

    if len(runs) == 1 and output is not None:
        raise typer.BadParameter(
            "the page of one run is in its directory; it has an effect with several",
            param_hint="--output",
        )
    with usable(OSError, ReportError):
        if len(runs) == 1:
            page = write_report(runs[0])
        else:
            page = write_overlay(runs, output or runs[0].parent / "overlay.html")
        say(page)


def list_runs(
    folder: Annotated[Path, typer.Argument(help="Where the runs are.")] = Path("runs"),
) -> None:
    """List the runs in a folder with their state and held-out accuracy."""
    from ctpo.report import ReportError
    from ctpo.report.listing import list_runs
    from ctpo.report.outcome import latest

    with usable(ReportError):
        found = list_runs(folder)
    wide = console.width >= 80
    table = Table("run", "state", box=None, pad_edge=False)
    table.add_column("accuracy", justify="right")
    if wide:
        for name in ("batch", "objective", "seed"):
            table.add_column(name, justify="right")
    for path, run in found:
        name = str(path.relative_to(folder))
        if isinstance(run, ReportError):
            table.add_row(name, "unreadable", str(run) if wide else "")
            continue
        of, score = run.settings.get, latest(run)
        accuracy = "" if score is None else str(score) if wide else score.percent
        batch = f"{run.batch}/{of('optimization.batches', '?')}"
        more = (batch, of("objective.preset", ""), str(of("seed", "")))
        table.add_row(name, run.state, accuracy, *(more if wide else ()))
    console.print(table if found else f"no runs in {folder}", highlight=False)


def watch(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between looks.")] = 2.0,
) -> None:
    """Show a run as it goes, until it ends. Ctrl-C stops watching, not the run."""
    from ctpo.report import ReportError
    from ctpo.report.listing import progress
    from ctpo.report.reading import Run, read_run

    def table(now: Run) -> Table:
        shown = Table(box=None, show_header=False, pad_edge=False)
        for word, value in progress(now):
            shown.add_row(word, value)
        return shown

    with usable(ReportError):
        now = read_run(run, glance=True)
        try:
            # Without a terminal, the last look alone is printed.
            with Live(table(now), console=console, auto_refresh=False) as live:
                while now.state == "running":
                    time.sleep(every)
                    now = read_run(run, glance=True)
                    live.update(table(now), refresh=console.is_terminal)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
