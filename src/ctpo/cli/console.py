"""What a person sees: progress bars, tables, and errors in one sentence."""

from __future__ import annotations

import os
import pwd
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import typer
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from ctpo.training.termination import Terminated

console = Console()


def say(text: object, *, end: str = "\n") -> None:
    """Print a text as it stands: nothing in it is markup, coloured or broken into lines."""
    console.print(text, markup=False, highlight=False, soft_wrap=True, end=end)


def fail(error: Exception) -> typer.Exit:
    """Print an error that the user can mend, and return the exit to raise."""
    if isinstance(error, BrokenPipeError):  # as of `| head`, which has seen enough
        return typer.Exit(1)
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        if isinstance(error, PermissionError) and isinstance(error.filename, str):
            text += _whose(Path(error.filename).absolute())
    Console(stderr=True).print(f"[red]error[/] {escape(text)}", soft_wrap=True)
    return typer.Exit(1)


def _whose(path: Path) -> str:
    """Say of a path what on the way to it this user may not use, as far as that can be seen."""
    for place in (path, *path.parents):
        if os.path.lexists(place) and not os.access(place, os.R_OK | os.W_OK):
            about = place.lstat()
            return (
                f": {_user(os.geteuid())}, who runs this, may not use {place}, which is "
                f"{_user(about.st_uid)}'s ({stat.filemode(about.st_mode)}); name another place or "
                "have its rights changed"
            )
    return ""


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


@contextmanager
def usable(*errors: type[Exception]) -> Iterator[None]:
    """Turn errors the user can mend into one sentence and exit code 1."""
    try:
        yield
    except errors as error:
        raise fail(error) from None


@contextmanager
def interruptible(how: str) -> Iterator[None]:
    """Say how to go on where Ctrl-C or a signal ends the block, and exit as is usual then."""
    try:
        yield
    except KeyboardInterrupt:
        say(f"interrupted; {how}")
        raise typer.Exit(130) from None
    except Terminated as end:
        say(f"{end.name}; {how}")
        raise typer.Exit(int(end.code or 0)) from None


def place(text: str | Path) -> Path:
    """Read an option that names a file or a directory; an empty one would be the current one.

    Raises:
        BadParameter: It is empty.
    """
    if isinstance(text, str) and not text.strip():
        raise typer.BadParameter("it is empty; the current directory is called .")
    return Path(text)


def print_table(table: Table) -> None:
    """Print a table; where it would be cut, its rows one after the other instead."""
    unlimited = console.options.update(max_width=10_000)  # else no table is wider than that
    if Measurement.get(console, unlimited, table).minimum <= console.width:
        console.print(table)
        return
    if table.title is not None:
        console.print(table.title, style="table.title")
    headings = [str(column.header) for column in table.columns]
    _print_rows(headings, zip(*(column.cells for column in table.columns), strict=True))


def print_markdown(text: str) -> None:
    """Print Markdown as it stands, but tables wider than the terminal row by row."""
    for is_table, group in groupby(text.splitlines(), lambda line: line.startswith("|")):
        lines = list(group)
        if is_table and max(map(cell_len, lines)) > console.width:
            cells = [re.split(r"\s*(?<!\\)\|\s*", line)[1:-1] for line in lines]
            _print_rows(cells[0], [[escape(cell) for cell in row] for row in cells[2:]])
        else:
            say("\n".join(lines))


def _print_rows(headings: Sequence[str], rows: Iterable[Sequence[RenderableType]]) -> None:
    for row in rows:
        first, *others = zip(headings, row, strict=True)
        console.print(*(part for part in first if part), highlight=False, soft_wrap=True)
        for heading, cell in others:
            console.print(f"  {heading}", cell, highlight=False, soft_wrap=True)


class Bars:
    """A `Listener` that draws one progress bar per phase; use it as a context manager."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<20}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._task: TaskID | None = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def phase(self, name: str, total: int | None) -> None:
        """Show the bar of `name`; a phase taken up again goes on in its own bar."""
        self._progress.start()  # not before: without a bar it prints an empty line
        if name.startswith("evaluation") and name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, numbers="")
        self._task = self._tasks[name]

    def progress(self, done: int, total: int | None = None, **numbers: float) -> None:
        """Move the bar and show the numbers beside it."""
        assert self._task is not None, "a phase has begun"
        shown = "  ".join(f"{name} {value:.2f}" for name, value in numbers.items())
        # A total of None leaves the bar's own as it is.
        self._progress.update(self._task, completed=done, total=total, numbers=shown)
