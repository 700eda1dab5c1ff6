"""`ctpo inspect-log` and `ctpo lm-eval-log`: an evaluation in other tools' formats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ctpo.cli.console import say, usable


def inspect_log(
    evaluation: Annotated[Path, typer.Argument(help="An evaluation's directory.")],
    output: Annotated[
        Path | None,
        typer.Option(
            help="The log, .eval or .json. (default: in that directory, under the name that "
            "Inspect looks for; .eval where inspect_ai is installed)"
        ),
    ] = None,
) -> None:
    """Write an evaluation as a log that Inspect AI can read and show."""
    from ctpo.evaluation.inspect_log import write_inspect_log

    with usable(OSError, ValueError):
        file = write_inspect_log(evaluation, output)
    say(f"log         {file}")


def lm_eval_log(
    evaluation: Annotated[Path, typer.Argument(help="A finished evaluation's directory.")],
    output: Annotated[
        Path | None, typer.Option(help="Folder for the files. (default: that directory)")
    ] = None,
) -> None:
    """Write an evaluation as lm-evaluation-harness writes its results and samples."""
    from ctpo.evaluation.lm_eval_log import write_lm_eval_log

    with usable(OSError, ValueError):
        file = write_lm_eval_log(evaluation, output)
    say(f"results     {file}")
