"""Turn one row of a data set into a problem, or say exactly what is wrong with it."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from ctpo.tasks.problem import Message, Problem, Split

Row = Mapping[str, Any]

QUESTION_FIELDS = ("prompt", "problem", "question")
ANSWER_FIELDS = ("answer", "final_answer")
_GOLD_FIELDS = (*ANSWER_FIELDS, "answers", "reward_model.ground_truth", "solution")
# What others call them, nearest first.
_OTHER_NAMES = {
    "question": ("query", "instruction", "input", "problem_text", "statement", "text"),
    "answer": ("gold", "ground_truth", "target", "label", "expected_answer", "solution", "output"),
}
ROLES = ("system", "user", "assistant", "tool")

# Names in use for the same three parts.
SPLITS: dict[str, Split] = {
    "train": "train",
    "test": "test",
    "held-out": "held-out",
    "validation": "held-out",
    "val": "held-out",
    "dev": "held-out",
}


def problem_from_row(row: Row, place: str, number: int, name: str, split: Split) -> Problem:
    """Reads one row in verl's schema or in the plain one.

    verl's schema has `prompt` (a list of messages), `reward_model.ground_truth`, `data_source`,
    `extra_info.index` and perhaps `id`. The plain one has `prompt`, `problem` or `question` (a
    string), `answer` or `final_answer` and perhaps `id`, `source` and a `context` that precedes the
    question; without an answer the last box of `solution` is it. `answers`, a list, has several
    that are right each. `plain_gold` says what becomes of
    golds.

    Args:
        row: The fields.
        place: Where the row is, for error messages.
        number: The row's number, counted from 1, for rows without an identifier.
        name: Source of rows that name none.
        split: Split of rows that name none.

    Returns:
        The problem.

    Raises:
        ValueError: If a field is missing or of the wrong kind; the message says where, which field,
            what it holds and what it should.
    """
    reader = _RowReader(row, place)
    source = reader.source(name)
    answer, *also = reader.answers()
    return Problem(
        id=reader.identifier(source, number),
        messages=reader.messages(),
        answer=answer,
        source=source,
        split=stated_split(row, place) or split,
        row=row,
        also=tuple(also),
    )


def stated_split(row: Row, place: str) -> Split | None:
    """Returns the split a row says it belongs to (`extra_info.split`), or None if it says nothing.

    Args:
        row: The fields.
        place: Where the row is, for error messages.

    Raises:
        ValueError: If the name is not a known one.
    """
    reader = _RowReader(row, place)
    name = reader.extra_info().get("split")
    if name is None:
        return None
    if name not in SPLITS:
        reader.fail("extra_info.split", name, f"one of {', '.join(SPLITS)}")
    return SPLITS[name]


class _RowReader:
    """Checks the fields of one row."""

    def __init__(self, row: Row, place: str) -> None:
        self._row = row
        self._place = place

    def fail(self, field: str, found: object, wanted: str) -> NoReturn:
        shown = "missing or null" if found is None else repr(found)
        shown = shown if len(shown) <= 100 else shown[:100] + "..."
        raise ValueError(f"{self._place}: {field} is {shown}; it must be {wanted}")

    def extra_info(self) -> Row:
        info = self._row.get("extra_info")
        if info is None:
            return {}
        if not isinstance(info, Mapping):
            self.fail("extra_info", info, "a mapping")
        return info

    def source(self, default: str) -> str:
        for field in ("data_source", "source"):
            value = self._row.get(field)
            if value is not None:
                return self._text(field, value)
        return default

    def identifier(self, source: str, number: int) -> str:
        value = self._row.get("id")
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
                self.fail("id", value, "a non-empty string or an integer")
            return str(value)
        index = self.extra_info().get("index")
        return f"{source}-{number if index is None else index}"

    def messages(self) -> tuple[Message, ...]:
        for field in QUESTION_FIELDS:
            value = self._row.get(field)
            if isinstance(value, str):
                text = with_context(self._row, self._text(field, value))
                return ({"role": "user", "content": text},)
            if value is not None:
                return self._chat(field, value)
        raise ValueError(
            f"{self._place}: none of the fields {', '.join(QUESTION_FIELDS)} is there; the fields"
            f" are {', '.join(self._row)}{self._nearest('question', QUESTION_FIELDS)}"
        )

    def _nearest(self, part: str, names: Sequence[str]) -> str:
        """Say which of the columns most likely is the missing part."""
        columns = {column.lower().replace(" ", "_"): column for column in self._row}
        for name in (*names, *_OTHER_NAMES[part]):
            for found in difflib.get_close_matches(name, columns, n=1, cutoff=0.8):
                if columns[found] not in names:
                    return f"; if {columns[found]!r} is the {part}, rename it to {part!r}"
        return ""

    def _chat(self, field: str, value: object) -> tuple[Message, ...]:
        if not isinstance(value, Sequence) or not value:
            self.fail(field, value, "a string or a non-empty list of messages")
        messages = []
        for index, message in enumerate(value):
            at = f"{field}[{index}]"
            if not isinstance(message, Mapping):
                self.fail(at, message, "a message with a role and a content")
            if message.get("role") not in ROLES:
                self.fail(f"{at}.role", message.get("role"), f"one of {', '.join(ROLES)}")
            content = self._text(f"{at}.content", message.get("content"))
            messages.append({"role": message["role"], "content": content})
        if messages[-1]["role"] not in ("user", "tool"):
            self.fail(f"{field}[-1].role", messages[-1]["role"], "'user': the model answers next")
        return tuple(messages)

    def answers(self) -> list[str]:
        """Return the accepted answers, of which `answers` names several."""
        values = self._row.get("answers") or self.extra_info().get("answers")
        if values is None:
            return [self._answer()]
        if not isinstance(values, list | tuple):
            self.fail("answers", values, "a list of answers, each of them right")
        if named := [field for field in ANSWER_FIELDS if self._row.get(field) is not None]:
            raise ValueError(f"{self._place}: has answers and {named[0]}; give one of them")
        return [self._gold(f"answers[{at}]", value) for at, value in enumerate(values)]

    def _answer(self) -> str:
        field = next((f for f in ANSWER_FIELDS if self._row.get(f) is not None), "answer")
        value = self._row.get(field)
        model = self._row.get("reward_model")
        if model is not None:
            field = "reward_model.ground_truth"
            if not isinstance(model, Mapping):
                self.fail("reward_model", model, "a mapping with a ground_truth")
            value = model.get("ground_truth")
        elif value is None:
            value = _last_box(str(self._row.get("solution") or ""))
        if value is None and model is None:
            raise ValueError(
                f"{self._place}: none of the fields {', '.join(_GOLD_FIELDS)} has an answer; the "
                f"fields are {', '.join(self._row)}{self._nearest('answer', ANSWER_FIELDS)}"
            )
        return self._gold(field, value)

    def _gold(self, field: str, value: object) -> str:
        parts: Sequence[Any] = value if isinstance(value, list | tuple) else [value]
        if not all(isinstance(p, str | int | float) and not isinstance(p, bool) for p in parts):
            self.fail(field, value, "a non-empty string")
        if not all(isinstance(p, str) or abs(p) < math.inf for p in parts):
            self.fail(field, value, "text or a finite number")
        gold = plain_gold(value)
        return gold if gold else self._text(field, value)

    def _text(self, field: str, value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            self.fail(field, value, "a non-empty string")
        return value


def with_context(row: Row, question: str) -> str:
    """Return a question behind what several questions share, as OlympiadBench's parts do."""
    context = row.get("context")
    return (
        f"{context.strip()}\n\n{question}"
        if isinstance(context, str) and context.strip()
        else question
    )


def plain_gold(value: object) -> str:
    """Return the gold answer alone, taken out of what data sets put around it.

    Several values are one answer, with commas between (OlympiadBench). Of a worked solution the
    answer is what follows the last `####` (GSM8K). A list written out as text, `["34"]`, is its
    values (DAPO). Dollar signs around the whole are dropped.

    Args:
        value: A string, a number or a list of them.
    """
    if isinstance(value, list | tuple):
        return ", ".join(map(plain_gold, value))
    text = str(value).strip()
    if marked := re.search(r"####[ \t]*([^\n]+)\s*\Z", text):
        return marked[1].strip().replace(",", "")
    if re.fullmatch(r"\[\s*(\".*\"|'.*'|-?[0-9.]+)\s*\]", text, re.DOTALL):
        try:
            return plain_gold(json.loads(text))
        except ValueError:  # in Python's quotes, or with LaTeX's backslashes
            inner = text[1:-1].strip()
            if inner.count(inner[0]) == 2:
                return plain_gold(inner[1:-1])
    return text.strip("$").strip() if text.count("$") == 2 else text


def _last_box(text: str) -> str | None:
    """What stands in the last box of a worked solution; None without one that is closed."""
    start = text.rfind("\\boxed{")
    depth = 0
    for at in range(start + len("\\boxed"), len(text)) if start >= 0 else ():
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return text[start + len("\\boxed{") : at]
    return None
