"""`ctpo study`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from ctpo.cli.console import console, interruptible, say, usable
from ctpo.commands import cache_directory

if TYPE_CHECKING:
    from ctpo.studies.running import Progress, StudyRun

app = typer.Typer(help="Compare methods over many runs, with seeds and intervals.")


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="A study, a .toml file.")],
    output: Annotated[
        Path | None, typer.Option(help="The study's directory. (default: runs/NAME)")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Runs at a time, one processor each. (default: 1)"),
    ] = None,
    shard: Annotated[
        str, typer.Option(help="Do only this part of the cells, such as 2/3; for many machines.")
    ] = "1/1",
    ray: Annotated[
        str | None,
        typer.Option(help="Run cells as tasks on the Ray cluster at this address; or local."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List cells and what they cost, and do nothing.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed.")
    ] = False,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes", help="Go on although the study is not what was begun in its place."
        ),
    ] = False,
) -> None:
    """Run a study, or go on with it. Say it again after anything that stopped it."""
    from ctpo.report import ReportError
    from ctpo.studies.cells import check_recipes
    from ctpo.studies.directory import StudyDirectory
    from ctpo.studies.pools import LocalPool, RayPool
    from ctpo.studies.running import StudyRun
    from ctpo.studies.study import StudyError, load_study

    part = _shard(shard)
    if ray is not None and jobs is not None:
        raise typer.BadParameter("a Ray cluster says how many run at a time", param_hint="--jobs")
    with usable(OSError, StudyError, ReportError, ValueError):
        study = load_study(file)
        check_recipes(study, file.parent)
        path = output or Path("runs") / study.name
        if dry_run:
            _list(StudyRun(study, file.parent, StudyDirectory(path), cache_directory(), part))
            return
        pool = (
            LocalPool(jobs or 1) if ray is None else RayPool(ray)
        )  # makes no directory if it fails
        directory = StudyDirectory.prepare(path, study, file, accept_changes=accept_changes)
        if retry_failed:
            directory.forget_failures()
        work = StudyRun(study, file.parent, directory, cache_directory(), part)
        try:
            with interruptible("the same command goes on from here"), _Board() as board:
                complete = work.run(pool, board.show)
        finally:
            pool.stop()
    if not complete:
        say(
            "the tuning has cells left to do. When those of the other shards lie in "
            f"{path / 'cells'} too, the same command runs the test"
        )
    failed = sorted(path.glob("cells/*/failed.json"))
    for one in failed:
        say(f"failed      {one.parent / 'log.txt'}")
    say(f"next        ctpo study report {path}")


def _shard(text: str) -> tuple[int, int]:
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise typer.BadParameter(
            f"{text!r} is not a part of a whole, such as 2/3", param_hint="--shard"
        )
    return int(number), int(of)


def _list(work: StudyRun) -> None:
    plan = work.plan()
    for cell in [*plan.tuning, *(plan.test or [])]:
        say(cell.name)
    seconds = work.seconds(plan.tuning)
    say(f"tuning      {len(plan.tuning)} cells, {_hours(seconds)} on one core are left")
    if plan.test is None:
        rest, count = work.upcoming_seconds(), len(work.upcoming())
        say(f"test        {count} cells with what the tuning chooses, {_hours(rest)}")
    else:
        rest = work.seconds(plan.test)
        say(f"test        {len(plan.test)} cells, {_hours(rest)} are left")
    say("Warm starts, a few minutes for each size of model, are not counted")


def _hours(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


class _Board:
    """A table that is drawn anew; where nobody looks, a line for every cell that ends."""

    def __init__(self) -> None:
        from rich.live import Live

        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._said: set[str] = set()

    def __enter__(self) -> _Board:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, progress: Progress) -> None:
        """Show where the study is."""
        from ctpo.studies.directory import State

        ended = [n for n, s in progress.states.items() if s in (State.DONE, State.FAILED)]
        rest = f"{_hours(progress.seconds_left)} left" if progress.seconds_left else ""
        if self._live is None:
            for name in ended:
                if (key := f"{progress.phase} {name}") not in self._said:
                    self._said.add(key)
                    state = progress.states[name].value
                    say(f"{state:8}{name}  {rest}")
            return
        table = Table("method", title=f"{progress.phase}: {len(ended)} of {len(progress.states)}")
        columns = [*State, "running"]
        for column in columns:
            table.add_column(column if isinstance(column, str) else column.value, justify="right")
        groups: dict[str, list[str]] = {}
        for name in progress.states:
            groups.setdefault(name.split("_")[1] if "_" in name else name, []).append(name)
        for group, names in groups.items():
            counts = [sum(progress.states[n] is state for n in names) for state in State]
            running = sum(n in progress.running for n in names)
            table.add_row(group, *(str(n or "") for n in [*counts, running]))
        longest = max((time.monotonic() - t for t in progress.running.values()), default=0.0)
        table.caption = f"{rest}; the oldest cell runs for {_hours(longest)}"
        self._live.update(table, refresh=True)


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(help="A study's directory.")],
    reference: Annotated[
        str | None, typer.Option(help="What the others are compared with, if not the study's.")
    ] = None,
) -> None:
    """Make a study's tables, figures, page and results.parquet from its directory."""
    from ctpo.report import ReportError
    from ctpo.studies.report import write_study_report
    from ctpo.studies.study import StudyError

    with usable(ReportError, StudyError):
        say(write_study_report(directory, reference))
