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
            "whole text), and gold: text, a number, or a list of several that are right each."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            help="Write each row with its outcome and reason to this file; what is there is "
            "replaced."
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option(help="Tell of every row that is not right how both sides were read.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(help="Processor seconds a comparison may take, at most 60.")
    ] = 5.0,
) -> None:
    """Grade a file of answers; exits with 1 for a file that cannot be used, with 2 for doubts."""
    from ctpo.disk import write_text
    from ctpo.grading import grade
    from ctpo.grading.verdict import check_timeout

    counts: Counter[str] = Counter()
    shown, written = [], []
    with usable(OSError, ValueError):
        check_timeout(timeout)
        rows = list(_rows(file))
        if output is not None:
            _check_output(output, file, rows)
        for line, row, response in rows:
            verdict = grade(response, row["gold"], timeout=timeout, explain=True)
            counts[verdict.outcome] += 1
            written.append(row | {"outcome": verdict.outcome, "reason": verdict.reason})
            if verdict.outcome == "could-not-tell" or (explain and verdict.outcome != "right"):
                shown.append(f"line {line}  {verdict.outcome}: {verdict.reason}")
        if output is not None:
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in written)
            write_text(output, text)
    table = Table("outcome", "answers", "share", box=SIMPLE_HEAD)
    for outcome in OUTCOMES:
        share = counts[outcome] / counts.total()
        table.add_row(outcome, str(counts[outcome]), f"{share:.1%}")
    print_table(table)
    for text in shown:
        say(text)
    if counts["could-not-tell"]:
        raise typer.Exit(2)


def _check_output(output: Path, file: Path, rows: list[tuple[int, dict[str, Any], str]]) -> None:
    """Refuse to lose what is there, and make the folder."""
    if output.resolve() == file.resolve():
        raise ValueError(f"--output is {output}, the file that is graded; name another")
    if output.exists() and not output.is_file():
        raise ValueError(f"--output is {output}, where there is something else than a file")
    for line, row, _ in rows:
        if taken := row.keys() & {"outcome", "reason"}:
            raise ValueError(
                f"{file}, line {line}: it has {' and '.join(sorted(taken))}, which --output would "
                "write over; rename it"
            )
    output.parent.mkdir(parents=True, exist_ok=True)


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any], str]]:
    """Yields each row with its line's number and the response to grade."""
    from ctpo.grading.verdict import gold_text

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
            given = "answer" if "answer" in row else "response"
            several = isinstance(row["gold"], list)
            try:
                answer = gold_text(row[given], given)
                for at, gold in enumerate(row["gold"] if several else [row["gold"]]):
                    gold_text(gold, f"gold[{at}]" if several else "gold")
            except (TypeError, ValueError) as error:
                raise ValueError(f"{file}, line {number}: {error}") from None
            yield number, row, rf"\boxed{{{answer}}}" if given == "answer" else answer
    if not seen:
        raise ValueError(f"{file} holds no rows")
