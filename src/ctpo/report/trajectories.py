"""The page of an evaluation's answers: each trajectory, its program and output, its grade."""

from __future__ import annotations

import heapq
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from ctpo.report.page import environment
from ctpo.report.reading import ReportError

# A page must stay small enough to open.
MAX_ANSWERS = 1500
MAX_CHARACTERS = 30_000

_FENCED = re.compile(
    r"^[ \t]*(`{3,}|~{3,})(?:python|py|python3)[^\n]*\n(.*?)^[ \t]*\1[`~]*[ \t]*$",
    re.DOTALL | re.MULTILINE,
)
_LEXER = PythonLexer(stripnl=False, ensurenl=False)
_FORMATTER = HtmlFormatter(nowrap=True)


@dataclass(frozen=True)
class Piece:
    """A stretch of a trajectory to show.

    Attributes:
        kind: `said`, `thought`, `code` or `output`.
        html: Its text, escaped or highlighted.
    """

    kind: str
    html: Markup


def write_trajectory_page(directory: Path) -> Path:
    """Write `trajectories.html` into an evaluation's directory.

    It needs no network and shows every answer, up to `MAX_ANSWERS` spread evenly over the problems,
    with filters by outcome, by failed programs, by truncation and by text.

    Args:
        directory: What `ctpo eval` wrote.

    Returns:
        The page.

    Raises:
        ReportError: A file is missing or cannot be read.
    """
    summary = _json_file(directory / "summary.json")
    settings = _json_file(directory / "settings.json")
    problems = {(p["benchmark"], p["problem_id"]): p for p in _lines(directory / "problems.jsonl")}
    # The first samples of every problem; the rest is not even held in memory.
    first = heapq.nsmallest(
        MAX_ANSWERS,
        _lines(directory / "answers.jsonl"),
        key=lambda a: (a["sample"], a["benchmark"], a["problem_id"]),
    )
    shown = sorted(first, key=lambda a: (a["benchmark"], a["problem_id"], a["sample"]))
    count = sum(benchmark["answers"] for benchmark in summary["benchmarks"].values())
    html = (
        environment()
        .get_template("trajectories.html.jinja")
        .render(
            title=settings["model"],
            settings=settings,
            benchmarks=summary["benchmarks"],
            answers=[
                {
                    **answer,
                    "question": _question(
                        problems.get((answer["benchmark"], answer["problem_id"]))
                    ),
                    "pieces": list(_pieces(answer)),
                    "failed": any(c["status"] != "success" for c in answer["tool_calls"]),
                    "truncated": answer["finish_reason"] in ("length", "context"),
                }
                for answer in shown
            ],
            left_out=count - len(shown),
            highlighting=Markup(HtmlFormatter(style="friendly").get_style_defs("pre.code")),
            highlighting_dark=Markup(HtmlFormatter(style="github-dark").get_style_defs("pre.code")),
        )
    )
    page = directory / "trajectories.html"
    aside = directory / ".trajectories.html.unfinished"
    aside.write_text(html, encoding="utf-8")
    return aside.replace(page)


def _pieces(answer: dict[str, Any]) -> Iterator[Piece]:
    """Cut the turns into prose, programs and outputs."""
    calls = iter(answer["tool_calls"])
    room = MAX_CHARACTERS
    for turn in answer["turns"]:
        text = turn["text"][:room]
        room -= len(text)
        if turn["role"] == "tool":
            yield Piece("output", Markup.escape(text.strip("\n")))
        elif turn["role"] == "reasoning":
            yield Piece("thought", Markup.escape(text))
        else:
            yield from _said(text)
            # A call in JSON is hard to read: its program is shown once more, as a program.
            call = next(calls, None)
            if call is not None and call["code"] and "<tool_call>" in text:
                yield Piece("code", _highlighted(call["code"]))
        if room <= 0:
            yield Piece("thought", Markup.escape("[the rest is left out]"))
            return


def _said(text: str) -> Iterator[Piece]:
    position = 0
    for found in _FENCED.finditer(text):
        if before := text[position : found.start()].strip("\n"):
            yield Piece("said", Markup.escape(before))
        yield Piece("code", _highlighted(textwrap.dedent(found[2])))
        position = found.end()
    if rest := text[position:].strip("\n"):
        yield Piece("said", Markup.escape(rest))


def _highlighted(code: str) -> Markup:
    return Markup(highlight(code, _LEXER, _FORMATTER).rstrip("\n"))


def _question(problem: dict[str, Any] | None) -> str:
    return "" if problem is None else str(problem["messages"][-1]["content"])


def _json_file(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReportError(f"{file} is missing; the evaluation is not finished") from None
    except ValueError as error:
        raise ReportError(f"{file} is not JSON: {error}") from error
    return content


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    try:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)
    except FileNotFoundError:
        raise ReportError(f"{file} is missing; the evaluation is not finished") from None
    except ValueError as error:
        raise ReportError(f"{file} is not JSON: {error}") from error
