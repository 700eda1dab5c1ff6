"""What a person sees: progress bars, tables, and errors in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console()


def fail(error: Exception) -> typer.Exit:
    """Print an error that the user can mend, and return the exit to raise."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror}"
    Console(stderr=True).print(f"[red]error[/] {escape(text)}", soft_wrap=True)
    return typer.Exit(1)


@contextmanager
def usable(*errors: type[Exception]) -> Iterator[None]:
    """Turn errors the user can mend into one sentence and exit code 1."""
    try:
        yield
    except errors as error:
        raise fail(error) from None


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
