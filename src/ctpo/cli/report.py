"""`ctpo report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctpo.cli.console import console, usable


def command(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
) -> None:
    """Draw a run's figures and its report anew from its directory."""
    from ctpo.report import ReportError, write_report

    with usable(ReportError):
        console.print(write_report(run), soft_wrap=True, highlight=False)
