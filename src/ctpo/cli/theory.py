"""`ctpo theory`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table as Rows

from ctpo.cli.console import Bars, print_table, say, usable

if TYPE_CHECKING:
    from ctpo.theory import Table
    from ctpo.training.measuring.gradients import Measurement

app = typer.Typer(help="Check the theory by computation.", no_args_is_help=True)


@app.command("exact")
def exact(
    out: Annotated[
        Path, typer.Option("--output", "--out", help="Directory for tables and figures.")
    ] = Path("theory-exact"),
) -> None:
    """Enumerate small policies: exact bias and variance of every estimator, in under a minute."""
    from ctpo.report.theory import write_tables
    from ctpo.theory import exact_tables

    with usable(FileExistsError, NotADirectoryError):
        out.mkdir(parents=True, exist_ok=True)
    with Bars() as bars:
        bars.phase("exact", None)
        tables = exact_tables(bars.progress)
    write_tables(tables, out, "exact")
    for table in tables:
        if table.name in ("rational", "counterexample", "identities", "ensemble", "drift"):
            _show(table)
    say(f"all tables  {out / 'exact.md'}")
    say(f"figures     {out / 'figures'}")


@app.command("measure")
def measure(
    run: Annotated[Path, typer.Argument(help="A run directory with checkpoints.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--output", "--out", help="Directory for tables and figures. (default: RUN/theory)"
        ),
    ] = None,
    old: Annotated[
        int | None,
        typer.Option(
            min=1, help="Batch after which the old policy was saved. (default: a third of the run)"
        ),
    ] = None,
    after: Annotated[
        str, typer.Option(help="How many batches later the new policies were saved.")
    ] = "1,2,4,8",
    problems: Annotated[int, typer.Option(min=2, help="Most held-out problems.")] = 128,
    answers: Annotated[int, typer.Option(min=1, help="Of the old policy, per problem.")] = 6,
    baseline_answers: Annotated[
        int, typer.Option(min=1, help="Of the old policy, for the baseline only.")
    ] = 4,
    reference_answers: Annotated[
        int, typer.Option(min=1, help="Of each new policy, per problem.")
    ] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of sampling, projection, bootstrap.")] = 0,
) -> None:
    """Measure bias and variance of every estimator's gradient between checkpoints of a run."""
    from ctpo.sandbox import SandboxUnavailable
    from ctpo.tir import SandboxFailure
    from ctpo.training.measuring.runs import MeasureRequest, measure_run

    with usable(FileNotFoundError, ValueError, SandboxFailure, SandboxUnavailable):
        request = MeasureRequest(
            run,
            old,
            _numbers(after),
            problems,
            answers,
            baseline_answers,
            reference_answers,
            seed,
        )
        with Bars() as bars:
            result = measure_run(request, bars)
    _write(result, out or run / "theory", asdict(request) | {"run": run.name})


@app.command("page")
def page(
    path: Annotated[Path, typer.Argument(help="A Markdown page with marked tables.")],
) -> None:
    """Bring a page's tables up to date: the exact ones computed, others from data/ beside it."""
    from ctpo.report.theory import recorded_tables
    from ctpo.theory import documented, exact_tables

    with usable(FileNotFoundError):
        text = path.read_text(encoding="utf-8")
    with Bars() as bars:
        bars.phase("exact", None)
        tables = exact_tables(bars.progress)
    path.write_text(
        documented(text, [*tables, *recorded_tables(path.parent / "data")]), encoding="utf-8"
    )


@app.command("measure-files")
def measure_files(
    old: Annotated[str, typer.Argument(help="The old policy: a model directory or a Hub name.")],
    new: Annotated[str, typer.Argument(help="The new policy.")],
    trajectories: Annotated[
        Path, typer.Argument(help="Graded answers of the old policy, as runs write them.")
    ],
    out: Annotated[
        Path, typer.Option("--output", "--out", help="Directory for tables and figures.")
    ] = Path("theory-measured"),
    reference: Annotated[
        Path | None, typer.Option(help="The same of the new policy, for the on-policy gradient.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="The answers were sampled at.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of projection and bootstrap.")] = 0,
) -> None:
    """Measure the same between any two models, on trajectories from a file."""
    from ctpo.training.measuring.files import FileRequest, measure_files

    with usable(FileNotFoundError, ValueError):
        request = FileRequest(old, new, trajectories, reference, temperature, seed)
        with Bars() as bars:
            result = measure_files(request, bars)
    _write(result, out, asdict(request))


def _write(result: Measurement, folder: Path, settings: dict[str, Any]) -> None:
    """Write and show what was measured."""
    from ctpo.report.theory import write_tables
    from ctpo.theory.measured_tables import measured_tables

    tables = measured_tables(result.distances)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {key: str(x) if isinstance(x, Path) else x for key, x in settings.items()} | {
        "old": result.old if result.old is not None else settings["old"],
        "unknown": result.unknown,
        "parameters": result.parameters,
    }
    write_tables(tables, folder, "measured", settings=settings)
    for table in tables:
        if table.name in ("measured-distance", "measured-variance", "measured-bias"):
            _show(table)
    say(f"\nall tables  {folder / 'measured.md'}")
    say(f"figures     {folder / 'figures'}")


def _show(table: Table) -> None:
    from ctpo.theory.tables import shown

    drawn = Rows(*table.columns, title=table.title, box=SIMPLE_HEAD, title_justify="left")
    for row in table.rows:
        drawn.add_row(*map(escape, map(shown, row)))
    print_table(drawn)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(x) for x in text.split(","))
    except ValueError:
        raise ValueError(
            f"--after is {text!r}; it must be numbers of batches between commas, e.g. 1,2,4,8"
        ) from None
