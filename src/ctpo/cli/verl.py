"""`ctpo verl`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctpo.cli.console import say, usable

app = typer.Typer(help="For those who run verl themselves.", no_args_is_help=True)


@app.command()
def paths() -> None:
    """Print where the files lie that a configuration of verl's names."""
    from ctpo.engines.verl.paths import PATHS, SEARCH_PATH

    width = max(map(len, ["search path", *PATHS]))
    for name, path in {"search path": SEARCH_PATH, **PATHS}.items():
        say(f"{name:<{width}}  {path}")


@app.command()
def log(
    dumps: Annotated[
        list[Path],
        typer.Argument(help="Batches saved with save_to_disk. Pickles: convert only your own."),
    ],
    out: Annotated[Path, typer.Option("--output", "--out", help="The Parquet file to write.")],
) -> None:
    """Convert saved batches of verl's to a log that `ctpo analyze` reads."""
    from ctpo.disk import check_parquet_name

    with usable(ValueError, OSError):
        check_parquet_name(out)
        for file in dumps:
            file.open("rb").close()  # before verl is imported, which takes seconds
        from ctpo.engines.verl.dumps import write_log

        count = write_log(dumps, out)
        say(f"{count} responses in {out}")
