"""Read problems from files (Parquet, JSONL, JSON, CSV), the Hub, and your functions."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ctpo.references import find, is_reference
from ctpo.tasks import reasoning_gym, verifiers
from ctpo.tasks.problem import Problem, Split
from ctpo.tasks.rows import SPLITS, Row, problem_from_row, stated_split

logger = logging.getLogger(__name__)

# Libraries whose problems are made, not read; one cannot be a module of the user's.
_ENVIRONMENTS = {
    reasoning_gym.PREFIX: reasoning_gym.reasoning_gym_problems,
    verifiers.PREFIX: verifiers.verifiers_problems,
}

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv")


def read_problems(
    source: str | Path,
    split: str | None = None,
    limit: int | None = None,
    *,
    unique: bool = False,
    field: str = "source",
) -> list[Problem]:
    """Reads problems from a file, a directory, the Hub or a function.

    Args:
        source: A `.parquet`, `.jsonl`, `.json` or `.csv` file, a directory that
            `datasets.load_dataset` understands, the name of a data set on the Hub, such as
            `math-ai/aime24`, or the `module:name` of a function without arguments, or of a list,
            that gives rows in the same schemas, or `Problem`s; or `reasoning-gym:FAMILY`
            or `verifiers:TASKSET`.
        split: Which part to read. Of a directory or a Hub data set, the split of that name, needed
            where there are several. Of a file, the rows whose `extra_info.split` is this one, and
            those that state none; of a function's rows likewise.
        limit: Most problems to return, from the start; None for all.
        unique: Leave out rows that repeat the question and the answer of an earlier one, and log
            how many.
        field: What messages call `source`, where that is not a file.

    Returns:
        The problems in their order. One that states no split has the one asked for, or "test".

    Raises:
        FileNotFoundError: If `source` looks like a path and nothing is there.
        ValueError: If a row cannot be read, an identifier occurs twice, a split is missing or
            unknown, or no problem is left. The message names file, row and field.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; it must be 1 or more, or None for all")
    path = Path(source)
    for prefix, problems in _ENVIRONMENTS.items():
        if str(source).startswith(prefix):
            if unique:
                raise ValueError(f"unique has no effect on {prefix.rstrip(':')}")
            return problems(str(source), _named_split(split, source), limit)
    if is_reference(str(source)):
        wanted = _named_split(split, source)
        given = find(str(source), field)
        given = given() if callable(given) else given
        if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
            raise ValueError(
                f"{field} is {str(source)!r}, which gives {given!r:.100}; it must give rows or "
                "problems"
            )
        own = enumerate(given, start=1)
        return problems_from_rows(
            own, str(source), path.name, wanted, wanted or "test", limit, unique
        )
    if path.suffix in SUFFIXES:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
        wanted = _named_split(split, "a file")
        rows = read_rows(path)
        return problems_from_rows(
            rows, str(path), path.stem, wanted, wanted or "test", limit, unique
        )
    if path.is_file():
        raise ValueError(f"{path}: the name must end in one of {', '.join(SUFFIXES)}")
    if not path.is_dir() and str(source).startswith((".", "/", "~")):
        raise FileNotFoundError(f"{path}: no such file or directory")
    rows, loaded = _data_set_rows(str(source), split)
    # The split was chosen by name; what the rows themselves say does not leave any of them out.
    stated = SPLITS.get(loaded, "test")
    return problems_from_rows(rows, str(source), path.name, None, stated, limit, unique)


def _named_split(split: str | None, place: str | Path) -> Split | None:
    if split is not None and split not in SPLITS:
        raise ValueError(f"split is {split!r}; of {place} it must be one of {', '.join(SPLITS)}")
    return None if split is None else SPLITS[split]


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yields the rows of a file of one of `SUFFIXES` with their numbers, counted from 1.

    Raises:
        ValueError: If the file or a line of it cannot be read.
    """
    readers = dict(zip(SUFFIXES, (_parquet_rows, _jsonl_rows, _json_rows, _csv_rows), strict=True))
    return readers[path.suffix](path)


def problems_from_rows(
    rows: Iterable[tuple[int, Row | Problem]],
    place: str,
    name: str,
    wanted: Split | None = None,
    default: Split = "test",
    limit: int | None = None,
    unique: bool = False,
) -> list[Problem]:
    """Makes problems of rows.

    Args:
        rows: Rows with their numbers; what is a problem already stays as it is.
        place: Where they are from, for error messages.
        name: Source of rows that name none.
        wanted: The split to keep; None for all.
        default: Split of rows that state none.
        limit: Most problems to return.
        unique: Leave out rows that repeat the question and the answer of an earlier one.

    Raises:
        ValueError: If a row cannot be read, an identifier occurs twice, or no problem is left.
    """
    problems: list[Problem] = []
    first_seen: dict[str, int] = {}
    asked: set[tuple[str, str]] = set()
    repeated = 0
    for number, row in rows:
        where = f"{place}, row {number}"
        if isinstance(row, Problem):
            problem = row
        elif not isinstance(row, Mapping):
            raise ValueError(f"{where}: is {row!r:.100}; it must be a mapping or a Problem")
        elif wanted is not None and stated_split(row, where) not in (None, wanted):
            continue
        else:
            problem = problem_from_row(row, where, number, name, default)
        content = (repr(problem.messages), problem.answer)
        if unique and content in asked:
            repeated += 1
            continue
        if problem.id in first_seen:
            hint = (
                "; it repeats an earlier row: `ctpo data --unique` leaves such rows out"
                if content in asked
                else ""
            )
            raise ValueError(
                f"{where}: id is {problem.id!r}, which row {first_seen[problem.id]} has already;"
                f" each row must have its own{hint}"
            )
        asked.add(content)
        first_seen[problem.id] = number
        problems.append(problem)
        if len(problems) == limit:
            break
    if repeated:
        logger.warning(
            "%s: %d rows repeat an earlier question and answer and are left out; %d problems stay",
            place,
            repeated,
            len(problems),
        )
    if not problems:
        raise ValueError(f"{place}: no problems" + (f" of split {wanted!r}" if wanted else ""))
    return problems


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yields rows with their numbers, counted from 1, a batch in memory at a time."""
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path}: not a readable Parquet file: {error}") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the lines of a text with their numbers, counted from 1; a byte order mark is none."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, row {number}: not UTF-8: byte {line[error.start]:#x} at column "
                    f"{error.start + 1}; if the file is in latin-1, write it anew: "
                    f"iconv -f latin1 -t utf-8 {path.name}"
                ) from error


def _jsonl_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yields rows with their line numbers, counted from 1; blank lines are no rows."""
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, row {number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(
                f"{path}, row {number}: is {line.strip()[:100]}; it must be a JSON object"
            )
        yield number, row


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yields the objects of a list; one list may stand in an object, as under `data`."""
    try:
        found = json.loads("".join(line for _, line in _lines(path)))
    except json.JSONDecodeError as error:
        hint = "; a file with one object a line is named .jsonl" * (error.msg == "Extra data")
        raise ValueError(f"{path}: not JSON: {error}{hint}") from error
    lists = [v for v in found.values() if isinstance(v, list)] if isinstance(found, dict) else []
    rows = lists[0] if len(lists) == 1 else found
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path}: must be a list of JSON objects, or an object that holds one")
    yield from enumerate(rows, start=1)


def _csv_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yields rows with their numbers, counted from 1 behind the line of names; all is text."""
    rows = csv.DictReader((line for _, line in _lines(path)), strict=True)
    number = 0
    try:
        for number, row in enumerate(rows, start=1):
            if None in row or None in row.values():
                raise ValueError(
                    f"{path}, row {number}: has another number of fields than the first line, "
                    f"which names {len(rows.fieldnames or ())}"
                )
            yield number, row
    except csv.Error as error:
        raise ValueError(f"{path}, row {number + 1}: not CSV: {error}") from error


def _data_set_rows(name: str, split: str | None) -> tuple[Iterator[tuple[int, Row]], str]:
    """Loads a split of a data set; returns its rows and its name."""
    from datasets import load_dataset

    splits = load_dataset(name)
    if split is None and len(splits) > 1:
        raise ValueError(f"{name} has the splits {', '.join(splits)}; name one")
    chosen = split or next(iter(splits))
    if chosen not in splits:
        raise ValueError(f"{name} has no split {chosen!r}; it has {', '.join(splits)}")
    return enumerate(splits[chosen], start=1), chosen
