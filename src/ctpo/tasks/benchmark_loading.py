"""Load a benchmark from the Hub or from a file, and check that it is what it should be."""

from __future__ import annotations

import difflib
import hashlib
import logging
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctpo.tasks.benchmark_checks import Golds, check_golds, check_row
from ctpo.tasks.benchmarks import BENCHMARKS, Benchmark
from ctpo.tasks.problem import Problem
from ctpo.tasks.readers import SUFFIXES, problems_from_rows, read_rows
from ctpo.tasks.rows import Row, plain_gold, with_context

_COMMIT = re.compile(r"@([0-9a-f]{40})")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedBenchmark:
    """A benchmark's problems and where they are from.

    Attributes:
        name: Its name.
        problems: All of it, or the first so many.
        source: The data set or the file.
        revision: The commit that was loaded, or the file's SHA-256; None if the Hub's cache did not
            say, which is warned of.
        golds: Whether the gold answers are those known of it, see `check_golds`.
        count: How many problems all of it has.
    """

    name: str
    problems: tuple[Problem, ...]
    source: str
    revision: str | None
    golds: Golds
    count: int


def load_benchmark(
    name: str, *, revision: str | None = None, limit: int | None = None
) -> LoadedBenchmark:
    """Load a registered benchmark.

    Args:
        name: A name of `BENCHMARKS`, or `name=path` to read it from a Parquet, JSONL or CSV file,
            with the columns of the Hub's data set or in verl's schema.
        revision: A commit, branch or tag instead of the pinned one.
        limit: Most problems to return, from the start. All of it is loaded and checked anyway.

    Raises:
        FileNotFoundError: The file is not there, or the Hub cannot be reached; the message says
            what to download where.
        ValueError: The name is unknown, a row cannot be read, an identifier occurs twice, or the
            problems are not the benchmark's (`check_row`, `check_golds`).
    """
    name, _, path = name.partition("=")
    if name not in BENCHMARKS:
        close = difflib.get_close_matches(name, BENCHMARKS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(
            f"there is no benchmark {name!r}{hint}; there are {', '.join(BENCHMARKS)}; "
            "a file of your own is --data"
        )
    benchmark = BENCHMARKS[name]
    if path:
        if revision is not None:
            raise ValueError(f"revision {revision!r} has no effect on the file {path}")
        file = Path(path)
        if not file.is_file():
            raise FileNotFoundError(f"{path}: no such file; {_how_to_get(benchmark)}")
        if file.suffix not in SUFFIXES:
            raise ValueError(f"{path}: the name must end in one of {', '.join(SUFFIXES)}")
        rows, place = read_rows(file), path
        loaded: str | None = "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()
    else:
        rows, loaded = _hub_rows(benchmark, revision)
        place = benchmark.repository
    mapped = ((number, _plain(benchmark, row, number, place)) for number, row in rows)
    problems = problems_from_rows(mapped, place, name)
    golds = check_golds(benchmark, problems, place)
    return LoadedBenchmark(name, tuple(problems[:limit]), place, loaded, golds, len(problems))


def _hub_rows(
    benchmark: Benchmark, revision: str | None
) -> tuple[Iterator[tuple[int, Row]], str | None]:
    from datasets import load_dataset

    wanted = revision or benchmark.revision
    try:
        data = load_dataset(
            benchmark.repository, benchmark.config, split=benchmark.split, revision=wanted
        )
    except Exception as error:  # a dozen types, by what is missing
        raise FileNotFoundError(
            f"{benchmark.title} is the data set {benchmark.repository}, which could not be loaded "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}). "
            f"{_how_to_get(benchmark, revision)}"
        ) from error
    return enumerate(data, start=1), _resolved(benchmark, wanted, data.info.download_checksums)


def _resolved(benchmark: Benchmark, wanted: str, files: Mapping[str, Any] | None) -> str | None:
    """The commit that was loaded. A branch or a tag is warned of: tomorrow it may be another."""
    if _COMMIT.fullmatch(f"@{wanted}"):
        return wanted
    found = _COMMIT.search(" ".join(files or {}))
    logger.warning(
        "%s: the revision %s may move; %s",
        benchmark.name,
        wanted,
        f"the commit {found[1]} was loaded and is recorded"
        if found
        else "which commit was loaded cannot be told, so this evaluation cannot be repeated",
    )
    return found[1] if found else None


def _how_to_get(benchmark: Benchmark, revision: str | None = None) -> str:
    wanted = revision or benchmark.revision
    terms = " after accepting its terms on the Hub," if benchmark.gated else ""
    part = f" (configuration {benchmark.config})" if benchmark.config else ""
    return (
        f"Where there is a network,{terms} run: hf download --repo-type dataset "
        f"{benchmark.repository} --revision {wanted} --local-dir {benchmark.name}; then pass "
        f"--benchmark {benchmark.name}={benchmark.name}/FILE with its Parquet, JSONL or CSV file "
        f"of the split {benchmark.split}{part}"
    )


def _plain(benchmark: Benchmark, row: Row, number: int, place: str) -> Row:
    """Map a row of the benchmark's columns to `prompt`, `answer` and `id`."""
    check_row(benchmark, row, f"{place}, row {number}")
    if "reward_model" in row:  # verl's schema, which says it all itself
        return row
    for column in (benchmark.question, benchmark.answer, *benchmark.wrong_choices):
        if row.get(column) is None:
            raise ValueError(
                f"{place}, row {number}: {benchmark.name} needs the column {column!r}; the row has "
                f"{', '.join(row)}"
            )
    question = with_context(row, row[benchmark.question])
    answer = plain_gold(row[benchmark.answer])
    if benchmark.wrong_choices:
        question, answer = _choices(benchmark, row)
    key = number if benchmark.id is None else row.get(benchmark.id)
    if key is None:
        raise ValueError(f"{place}, row {number}: {benchmark.id} is missing")
    return {
        "prompt": question,
        "answer": answer,
        "id": f"{benchmark.name}-{key}",
        "source": benchmark.name,
    }


def _choices(benchmark: Benchmark, row: Row) -> tuple[str, str]:
    """Write the choices under the question, in an order that depends on the question alone."""
    question = str(row[benchmark.question]).strip()
    right = str(row[benchmark.answer]).strip()
    choices = [right, *(str(row[column]).strip() for column in benchmark.wrong_choices)]
    random.Random(hashlib.sha256(question.encode()).digest()).shuffle(choices)
    lines = [f"({letter}) {choice}" for letter, choice in zip("ABCD", choices, strict=True)]
    asked = f"{question}\n\n" + "\n".join(lines) + "\n\nAnswer with the letter of the choice."
    return asked, "ABCD"[choices.index(right)]
