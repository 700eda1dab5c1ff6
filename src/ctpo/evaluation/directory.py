"""An evaluation on disk: each answer is there as soon as it is given, and once."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from ctpo.disk import LOCK, disk_errors, locked, write_text, write_whole
from ctpo.evaluation.answers import GRADE, Answer, Key, Question

_ROW_GROUP = 512  # answers in memory at a time

_STRUCT = pa.struct([(name, pa.string()) for name in ("code", "status", "output", "failure")])
_SCHEMA = pa.schema(
    [
        *[(name, pa.string()) for name in ("benchmark", "problem_id")],
        ("sample", pa.int32()),
        ("seed", pa.int64()),
        *[
            (name, pa.string())
            for name in ("gold", "outcome", "path", "reason", "extracted", "finish_reason", "text")
        ],
        ("turns", pa.list_(pa.struct([("role", pa.string()), ("text", pa.string())]))),
        ("tool_calls", pa.list_(_STRUCT)),
        ("tokens", pa.int32()),
        ("token_ids", pa.list_(pa.int32())),
        ("seconds", pa.float64()),
        ("earlier", pa.list_(pa.struct([(name, pa.string()) for name in GRADE]))),
        ("also", pa.list_(pa.string())),
    ]
)


class EvaluationDirectory:
    """The files of one evaluation. Use it as a context manager: it locks the directory.

    `settings.json` says what was asked for, `problems.jsonl` holds the questions, `answers.jsonl`
    one line per answer. A process killed at any moment leaves at most one torn line behind the
    whole ones; it is cut off when the directory is opened again, and that answer asked for again,
    as are those that a server failed to give.

    Args:
        path: The directory; made if it is not there.
        settings: Everything that decides the answers.
        keep_failed: Keep the answers that a server failed to give, because none will be asked for.

    Attributes:
        answers: Those there are, without their texts (`Answer.slim`).

    Raises:
        ValueError: The directory holds answers under other settings, a line cannot be read, or
            another process is at work in it.
    """

    def __init__(
        self, path: Path, settings: Mapping[str, Any], *, keep_failed: bool = False
    ) -> None:
        self.path = path
        self._keep_failed = keep_failed
        self._settings = json.loads(json.dumps(settings))  # as it will be read back
        self.answers: dict[Key, Answer] = {}

    def __enter__(self) -> Self:
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; an evaluation needs a directory")
        known = self.path / "settings.json"
        if self.path.is_dir() and not known.is_file() and any(map(_strange, self.path.iterdir())):
            raise ValueError(
                f"{self.path} holds something else: it has no settings.json; take another --output"
            )
        self._made = [place for place in (self.path, *self.path.parents) if not place.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            held.enter_context(locked(self.path))
            self._take_up(known)
            self._held = held.pop_all()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        answered = os.fstat(self._file).st_size > 0
        os.close(self._file)
        if self._made and error is not None and not answered:  # as after a mistyped model's name
            shutil.rmtree(self.path)
            with suppress(OSError):  # another evaluation has come to lie there
                for place in self._made[1:]:
                    place.rmdir()
        self._held.close()

    def _take_up(self, known: Path) -> None:
        file = self.path / "answers.jsonl"
        self._file = os.open(file, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644)
        try:
            self._cut_torn_line(file)
            answers = [answer.slim() for answer in read_answers(self.path)]
            self.answers = {answer.key: answer for answer in answers if self._keeps(answer)}
            # Without an answer, as after a mistyped model name, there is nothing to keep apart.
            if self.answers and known.is_file():
                self._check_same(json.loads(known.read_text()))
            else:
                self.write("settings.json", json.dumps(self._settings, indent=2) + "\n")
            if len(self.answers) < len(answers):
                self._rewrite(filter(self._keeps, read_answers(self.path)))
        except BaseException:
            os.close(self._file)
            raise

    def _cut_torn_line(self, file: Path) -> None:
        text = file.read_bytes()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            os.ftruncate(self._file, whole)

    def _keeps(self, answer: Answer) -> bool:
        return self._keep_failed or not answer.failed

    def _rewrite(self, answers: Iterable[Answer]) -> None:
        file = self.path / "answers.jsonl"

        def write(aside: Path) -> None:
            with aside.open("w", encoding="utf-8") as kept:
                kept.writelines(map(_line, answers))

        write_whole(file, write)
        os.close(self._file)
        self._file = os.open(file, os.O_RDWR | os.O_APPEND)

    def _check_same(self, before: Mapping[str, Any]) -> None:
        for name in {**before, **self._settings}:
            if before.get(name) != self._settings.get(name):
                raise ValueError(
                    f"{self.path} was begun with {name} = {before.get(name)!r}; now it is "
                    f"{self._settings.get(name)!r}. Take another --output, or go on as it was"
                )

    def add(self, answers: Sequence[Answer]) -> None:
        """Append answers; when this returns they are on the disk.

        Raises:
            ValueError: One of them is there already.
        """
        for answer in answers:
            if answer.key in self.answers:
                raise ValueError(f"{answer.key} has an answer already")
        data = "".join(map(_line, answers)).encode()
        with disk_errors(self.path):
            while data:
                data = data[os.write(self._file, data) :]
            os.fsync(self._file)
        self.answers |= {answer.key: answer.slim() for answer in answers}

    def change(self, each: Callable[[Answer], Answer]) -> list[tuple[Answer, Answer]]:
        """Put another answer in the place of each; a killed process leaves the old ones or the new.

        Args:
            each: Takes an answer with its texts, and returns the one to keep.

        Returns:
            Those that changed, before and after, without their texts.
        """
        changed = []

        def kept() -> Iterator[Answer]:
            for before in read_answers(self.path):
                after = each(before)
                if after != before:
                    changed.append((before.slim(), after.slim()))
                    self.answers[after.key] = after.slim()
                yield after

        self._rewrite(kept())
        return changed

    def add_problems(self, questions: Sequence[Question]) -> None:
        """Write `problems.jsonl`: each problem once, as it was put to the model."""
        problems = {(q.benchmark, q.problem.id): q.problem for q in questions}
        lines = [
            json.dumps(
                {
                    "benchmark": benchmark,
                    "problem_id": name,
                    "gold": problem.answer,
                    **({"also": problem.also} if problem.also else {}),
                    "messages": problem.messages,
                }
            )
            for (benchmark, name), problem in problems.items()
        ]
        self.write("problems.jsonl", "\n".join(lines) + "\n")

    def write(self, name: str, text: str) -> None:
        """Write a file whole: a killed process leaves the old one or the new one."""
        write_text(self.path / name, text)

    def write_parquet(self) -> None:
        """Write `answers.parquet`, all answers in the order they came."""
        answers = read_answers(self.path)

        def write(aside: Path) -> None:
            with pq.ParquetWriter(aside, _SCHEMA) as writer:
                while rows := [answer.to_dict() for answer in islice(answers, _ROW_GROUP)]:
                    writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))

        write_whole(self.path / "answers.parquet", write)


def _strange(path: Path) -> bool:
    """Whether a file is not what an evaluation leaves that ended before its settings were there."""
    empty = path.name == "answers.jsonl" and not path.stat().st_size
    return not empty and path.name not in (LOCK, ".settings.json.unfinished")


def _line(answer: Answer) -> str:
    return json.dumps(answer.to_dict()) + "\n"


def read_settings(path: Path) -> dict[str, Any]:
    """Read what an evaluation was asked for.

    Raises:
        FileNotFoundError: It has no `settings.json`.
        ValueError: That is not JSON.
    """
    file = path / "settings.json"
    if not file.is_file():
        raise FileNotFoundError(f"{path} is not an evaluation's directory: it has no {file.name}")
    settings: dict[str, Any] = json.loads(file.read_text())
    return settings


def read_answers(path: Path) -> Iterator[Answer]:
    """Read the answers of an evaluation's directory, one at a time, in the order they came.

    Raises:
        FileNotFoundError: There are none.
        ValueError: A line cannot be read, or an answer is there twice.
    """
    file = path / "answers.jsonl"
    if not file.is_file():
        raise FileNotFoundError(f"{path} is not an evaluation's directory: it has no answers.jsonl")
    seen: set[Key] = set()
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.endswith("\n"):
                break  # being written, or torn
            try:
                answer = Answer.from_dict(json.loads(line))
            except (ValueError, TypeError) as error:
                raise ValueError(f"{file}, line {number}: not an answer: {error}") from error
            if answer.key in seen:
                raise ValueError(f"{file}, line {number}: {answer.key} is there twice")
            seen.add(answer.key)
            yield answer
