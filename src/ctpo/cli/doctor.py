"""`ctpo doctor`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from ctpo.cli.console import print_table

_STYLES = {"good": "green", "limited": "yellow", "bad": "red"}


def command(
    engine: Annotated[
        Literal["trl", "verl"] | None,
        typer.Option(
            help="Look at what this one needs, and closer: for verl, whether a fresh process and a "
            "Ray worker of every node have loaded the plug-in."
        ),
    ] = None,
) -> None:
    """Tell what this machine can and cannot do. Exits with 1 if training cannot run."""
    from ctpo.doctor import examine

    table = Table("", "", "what was found", show_lines=True)
    findings = examine(engine)
    for finding in findings:
        style = _STYLES[finding.verdict]
        table.add_row(finding.topic, f"[{style}]{finding.verdict}[/]", escape(finding.words))
    print_table(table)
    if any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(1)
