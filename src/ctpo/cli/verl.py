"""`ctpo verl`."""

from __future__ import annotations

import typer

from ctpo.cli.console import console

app = typer.Typer(help="For those who run verl themselves.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `paths` a command of its own, though it is the only one."""


@app.command()
def paths() -> None:
    """Print where the files lie that a configuration of verl's names."""
    from ctpo.engines.verl.paths import PATHS, SEARCH_PATH

    width = max(map(len, ["search path", *PATHS]))
    for name, path in {"search path": SEARCH_PATH, **PATHS}.items():
        console.print(f"{name:<{width}}  {path}", markup=False, highlight=False, soft_wrap=True)
