r"""Is this response's answer right? The three outcomes are kept apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from ctpo.grading.box import UnclosedBoxError, last_box
from ctpo.grading.notation import Notation, take_apart
from ctpo.grading.numbers import read_number

Verdict = Literal["right", "wrong", "unknown"]

DEFAULT_TIMEOUT = 5.0
MAX_LENGTH = 2000

_BASED = re.compile(r"\(?([0-9A-Za-z]+)\)?_\{?([0-9]+)\}?")
# Space between two digits or two words separates them; elsewhere LaTeX does not print it.
_SPACE = re.compile(r"(?<![0-9A-Za-z])\s+|\s+(?![0-9A-Za-z])")
_WORD = re.compile(r"[A-Za-z]{4,}")


# What a verdict is worth; None is no score, which is not 0.
SCORES: dict[Verdict, float | None] = {"right": 1.0, "wrong": 0.0, "unknown": None}


@dataclass(frozen=True)
class Grade:
    """A verdict and its grounds.

    Attributes:
        verdict: "right", "wrong", or "unknown" where neither could be shown.
        extracted: What stood in the box; None if there was none.
        reason: The grounds, in a few words.
    """

    verdict: Verdict
    extracted: str | None
    reason: str


def grade(text: str, answer: str, *, timeout: float = DEFAULT_TIMEOUT) -> Grade:
    r"""Grades a response by the last `\boxed{...}` in it.

    Numbers are compared exactly and at once; a decimal is what it says, so 0.33 is not 1/3. Other
    formulas are compared by sympy in a worker process. Any number of threads may call this.

    Args:
        text: The assistant's own words. What a tool printed must be left out, or a printed box
            counts.
        answer: The right answer, in LaTeX or plain; it may stand in a box or between dollar signs.
        timeout: Seconds a worker may take over a formula.

    Returns:
        The grade. No box, an empty or an unclosed one is "wrong": no answer was given. A box that
        cannot be read, or compared in time, is "unknown".

    Raises:
        ValueError: If `answer` is empty or holds a box that does not close.
        RuntimeError: If a formula needs a worker and none can be started.
    """
    if "\\boxed" in answer:
        answer = last_box(answer) or ""
    answer = answer.strip()
    if not answer:
        raise ValueError("the answer to grade against is empty")
    try:
        box = last_box(text)
    except UnclosedBoxError as error:
        return Grade("wrong", None, str(error))
    if not box:
        return Grade("wrong", box, "no box" if box is None else "empty box")
    if box == answer:
        return Grade("right", box, "same text")
    return Grade(*_judge(take_apart(box), take_apart(answer), timeout, box))


def _judge(
    box: Notation, answer: Notation, timeout: float, extracted: str
) -> tuple[Verdict, str, str]:
    equal, reason = _equal_values(box, answer, timeout)
    if equal is None:
        return "unknown", extracted, reason
    for kind, given, wanted in (
        ("unit", box.unit, answer.unit),
        ("name", box.name, answer.name),
    ):
        # 5 cm may be 50 mm; x = 5 may follow from y = 5.
        if given and wanted and given != wanted:
            return "unknown", extracted, f"another {kind}: {given!r} instead of {wanted!r}"
    if not equal and (box.unit == "degree") != (answer.unit == "degree"):
        radians = answer if box.unit == "degree" else box
        if "pi" in radians.value:
            return "unknown", extracted, "degrees on one side, perhaps radians on the other"
    return "right" if equal else "wrong", extracted, reason


def _equal_values(box: Notation, answer: Notation, timeout: float) -> tuple[bool | None, str]:
    """Whether the values are equal, None if not known, and how that was found."""
    if not box.value or not answer.value:
        return None, "nothing left to compare"
    if _SPACE.sub("", box.value) == _SPACE.sub("", answer.value):
        if box.percent == answer.percent or read_number(answer.value) is not None:
            return True, "same text"
    numbers = read_number(box.value), read_number(answer.value)
    if numbers[0] is not None and numbers[1] is not None:
        return _equal_numbers(numbers[0], numbers[1], box.percent, answer.percent), "exact numbers"
    if max(len(box.value), len(answer.value)) > MAX_LENGTH:
        return None, f"longer than {MAX_LENGTH} characters"
    based = _BASED.fullmatch(box.value), _BASED.fullmatch(answer.value)
    if based[0] and based[1] and based[0][2] == based[1][2]:
        return based[0][1].lower() == based[1][1].lower(), "same number base"
    if box.worded or answer.worded or _WORD.fullmatch(answer.value):
        return _equal_words(box.value, answer.value)
    from ctpo.grading.pool import shared_pool

    comparison = shared_pool().compare(box.value, answer.value, timeout)
    return comparison.equal, comparison.reason or "formulas compared"


def _equal_numbers(
    box: Fraction | int, answer: Fraction | int, box_percent: bool, answer_percent: bool
) -> bool:
    """Compares exactly. Where one side alone has a percent sign, it is a unit or a hundredth."""
    if box_percent == answer_percent or box == answer:
        return box == answer
    return box == 100 * answer if box_percent else 100 * box == answer


def _equal_words(box: str, answer: str) -> tuple[bool | None, str]:
    if box.casefold() == answer.casefold():
        return True, "same words"
    if box.isalpha() and answer.isalpha():
        return False, "different words"
    return None, f"{box!r} is not comparable with {answer!r} as words"
