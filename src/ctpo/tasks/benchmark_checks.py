"""Is this the benchmark that it is called: what its rows say, and what its gold answers are."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from typing import Literal

from ctpo.tasks.benchmarks import BENCHMARKS, Benchmark
from ctpo.tasks.problem import Problem
from ctpo.tasks.rows import Row

Golds = Literal["known", "other", "not compared"]

_GOLD = {
    "integer": (re.compile(r"-?[0-9]+"), "a whole number"),
    "number": (re.compile(r"-?[0-9]+(\.[0-9]+)?(/[0-9]+)?"), "a number"),
    "latex": (re.compile(r".*\S.*", re.DOTALL), "not empty"),
    "choice": (re.compile(r"[A-D]"), "a letter from A to D"),
}
_YEAR = re.compile(r"[a-z](2[0-9])(?![0-9])")  # of a name such as aime25
_NOTATION = re.compile(r"\\left(?![a-z])|\\right(?![a-z])|\\[,!;: ]|\\displaystyle(?![a-z])|[\s$]")

logger = logging.getLogger(__name__)


def digest(golds: Sequence[str]) -> str:
    """Returns the first 16 hexadecimal digits of a SHA-256 over gold answers, whatever their order.

    Zero padding and LaTeX's spacing make no difference: the same set comes from several places.
    """
    text = "\n".join(sorted(map(_normal, golds)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _normal(gold: str) -> str:
    text = re.sub(r"\\[dt]frac(?![a-z])", r"\\frac", _NOTATION.sub("", gold))
    text = re.sub(r"(?<=[0-9])\.0+$", "", text)
    return str(int(text)) if re.fullmatch(r"-?[0-9]{1,50}", text) else text


def check_row(benchmark: Benchmark, row: Row, where: str) -> None:
    """Refuse a row that says it is from another benchmark, or another year.

    Args:
        benchmark: What it should be from.
        row: Its fields.
        where: Where it is, for the message.

    Raises:
        ValueError: Its `data_source` or `source` names another benchmark, or its `year` is not the
            benchmark's.
    """
    for field in ("data_source", "source"):
        stated = row.get(field)
        other = _named(stated) if isinstance(stated, str) else None
        if other is not None and other is not benchmark:
            raise ValueError(
                f"{where}: {field} is {stated!r}, which is {other.title}; it must be "
                f"{benchmark.title}"
            )
    year, known = row.get("year"), _YEAR.search(benchmark.name)
    if known and year is not None and not str(year).endswith(known[1]):
        raise ValueError(f"{where}: year is {year!r}; {benchmark.title} is of 20{known[1]}")


def _named(text: str) -> Benchmark | None:
    """The benchmark that a text names, by the longest of the names that fit."""
    squeezed = _squeeze(text)
    fitting = [
        (len(name), benchmark)
        for benchmark in BENCHMARKS.values()
        for name in (benchmark.name, _squeeze(benchmark.repository.rpartition("/")[2]))
        if name in squeezed
    ]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None


def _squeeze(text: str) -> str:
    return re.sub(r"20(?=2[0-9])", "", re.sub(r"[^a-z0-9]", "", text.lower()))


def check_golds(benchmark: Benchmark, problems: Sequence[Problem], place: str) -> Golds:
    """Check number, kind and digest of the gold answers.

    Args:
        benchmark: What the problems should be.
        problems: All of them.
        place: Where they are from, for the message.

    Returns:
        `known` if they are the benchmark's as we know them, `other` if not, which is also warned
        of; `not compared` if we do not know them.

    Raises:
        ValueError: There are more or fewer, one is not of its kind, they are those of another
            benchmark, or whole numbers are not this one's. (LaTeX may have been written anew.)
    """
    if len(problems) != benchmark.count:
        raise ValueError(
            f"{place}: {len(problems)} problems; {benchmark.title} has {benchmark.count}. "
            "Another revision, a part of it, or another set: pass a file of your own with --data"
        )
    pattern, wanted = _GOLD[benchmark.gold]
    for problem in problems:
        if not pattern.fullmatch(problem.answer):
            raise ValueError(
                f"{place}, {problem.id}: the gold answer is {problem.answer!r}; in "
                f"{benchmark.title} it must be {wanted}"
            )
    found = digest([problem.answer for problem in problems])
    if found == benchmark.golds:
        return "known"
    for other in BENCHMARKS.values():
        if found == other.golds:
            raise ValueError(
                f"{place}: the gold answers are those of {other.title}, not of {benchmark.title}"
            )
    if benchmark.golds is None:
        return "not compared"
    message = f"{place}: the gold answers are not those of {benchmark.title}"
    if benchmark.gold == "integer":
        raise ValueError(f"{message}; pass a file of your own with --data")
    logger.warning("%s as we know them: another revision, or another set", message)
    return "other"
