"""`ctpo grade`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ctpo.cli.console import print_table, say, usable

OUTCOMES = ("right", "wrong", "could-not-tell")


def command(
    file: Annotated[
        Path,
        typer.Argument(
            help="JSON lines with the columns answer (what stands in the box) or response (the "
            "whole text), and gold."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(help="Write each row with its outcome and reason to this file.")
    ] = None,
    explain: Annotated[
        bool, typer.Option(help="Tell of every row that is not right how both sides were read.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.01, help="Processor seconds a comparison may take.")
    ] = 5.0,
) -> None:
    """Grade a file of answers; exits with 1 for a file that cannot be used, with 2 for doubts."""
    from ctpo.grading import grade

    counts: Counter[str] = Counter()
    shown, written = [], []
    with usable(OSError, ValueError):
        for line, row, response in _rows(file):
            verdict = grade(response, row["gold"], timeout=timeout, explain=True)
            counts[verdict.outcome] += 1
            written.append(row | {"outcome": verdict.outcome, "reason": verdict.reason})
            if verdict.outcome == "could-not-tell" or (explain and verdict.outcome != "right"):
                shown.append(f"line {line}  {verdict.outcome}: {verdict.reason}")
        if output is not None:
            output.write_text(
                "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in written)
            )
    table = Table("outcome", "answers", "share", box=SIMPLE_HEAD)
    for outcome in OUTCOMES:
        share = counts[outcome] / counts.total()
        table.add_row(outcome, str(counts[outcome]), f"{share:.1%}")
    print_table(table)
    for text in shown:
        say(text)
    if counts["could-not-tell"]:
        raise typer.Exit(2)


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Yields each row with its line's number and the response to grade."""
    seen = False
    with open(file, encoding="utf-8-sig", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            seen = True
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{file}, line {number}: no JSON: {error}") from None
            if not isinstance(row, dict):
                raise ValueError(f"{file}, line {number}: {line.strip()[:40]!r} is no JSON object")
            if ("answer" in row) == ("response" in row) or "gold" not in row:
                raise ValueError(
                    f"{file}, line {number}: a row needs gold, and either answer or response; "
                    f"this one has {', '.join(row) or 'nothing'}"
                )
            for name in {"answer", "response", "gold"} & row.keys():
                if isinstance(row[name], int | float) and not isinstance(row[name], bool):
                    row[name] = str(row[name])
                if not isinstance(row[name], str):
                    raise ValueError(
                        f"{file}, line {number}: {name} must be text or a number, "
                        f"not {row[name]!r:.60}"
                    )
            boxed = rf"\boxed{{{row.get('answer')}}}"
            yield number, row, row["response"] if "response" in row else boxed
    if not seen:
        raise ValueError(f"{file} holds no rows")
