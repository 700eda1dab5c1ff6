r"""Is this response's answer right? The three outcomes are kept apart."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from ctpo.grading.box import LongBoxError, UnclosedBoxError, last_box
from ctpo.grading.lists import read_numbers, same_numbers
from ctpo.grading.notation import Notation, take_apart
from ctpo.grading.numbers import read_number
from ctpo.grading.units import OTHER_UNIT, conversions

Outcome = Literal["right", "wrong", "could-not-tell"]
Path = Literal[
    "box", "gold", "text", "integer", "rational", "list", "base", "words", "latex", "none"
]

DEFAULT_TIMEOUT = 5.0
MAX_LENGTH = 2000

logger = logging.getLogger(__name__)

_BASED = re.compile(r"\(?([0-9A-Za-z]+)\)?_\{?([0-9]+)\}?")
# Space between two digits or two words separates them; elsewhere LaTeX does not print it.
_SPACE = re.compile(r"(?<![0-9A-Za-z])\s+|\s+(?![0-9A-Za-z])")
_WORD = re.compile(r"[A-Za-z]{4,}")


# What an outcome is worth; None is no score, which is not 0.
SCORES: dict[Outcome, float | None] = {"right": 1.0, "wrong": 0.0, "could-not-tell": None}


@dataclass(frozen=True)
class Verdict:
    """An outcome and its grounds.

    Attributes:
        outcome: `right`, `wrong`, or `could-not-tell` where neither could be shown.
        extracted: What stood in the box; None if there was none.
        path: What decided: `box` (there was none, or none that could be read), `gold` (the gold
            answer itself cannot be used), `text` (the same text), `integer`, `rational`, `list`
            (exact numbers), `base` (a number in another base), `words`, `latex` (a worker compared
            two formulas) or `none` (no path led to an outcome).
        reason: The grounds, in a few words.
    """

    outcome: Outcome
    extracted: str | None
    path: Path
    reason: str

    @property
    def score(self) -> float | None:
        """1 for right, 0 for wrong, None where it could not be told."""
        return SCORES[self.outcome]


# Outcome, path, reason: a verdict without its extracted answer.
_Found = tuple[Outcome, Path, str]


def grade(text: str, gold: str, *, timeout: float = DEFAULT_TIMEOUT) -> Verdict:
    r"""Grades a response by the last `\boxed{...}` in it. Never raises and never hangs.

    Tried in this order: the same text; exact integers; exact rationals; lists, pairs, intervals and
    sets of them; words and numbers in another base; equivalence of LaTeX in a worker process. A
    decimal is what it says, so 0.33 is not 1/3. Any number of threads may call this.

    Args:
        text: The assistant's own words. What a tool printed must be left out, or a printed box
            counts.
        gold: The right answer, in LaTeX or plain; it may stand in a box or between dollar signs.
        timeout: Processor seconds a worker may take over a formula.

    Returns:
        The verdict. No box, an empty or an unclosed one is wrong: no answer was given. A box that
        cannot be read, or compared in time, and a fault of the grader itself are `could-not-tell`.
    """
    box: str | None = None
    try:
        if "\\boxed" in gold:
            gold = last_box(gold) or ""
        gold = gold.strip()
        if not gold:
            return Verdict("could-not-tell", None, "gold", "the gold answer is empty")
        try:
            box = last_box(text)
        except UnclosedBoxError as error:
            return Verdict("wrong", None, "box", str(error))
        except LongBoxError as error:
            return Verdict("could-not-tell", None, "box", str(error))
        if not box:
            return Verdict("wrong", box, "box", "no box" if box is None else "empty box")
        if box == gold:
            return Verdict("right", box, "text", "same text")
        outcome, path, reason = _judge(take_apart(box), take_apart(gold), timeout)
        return Verdict(outcome, box, path, reason)
    except Exception as error:
        # A fault in here must not be scored, and must not end a training run either.
        logger.exception("the grader failed on %.200r against %.200r", box, gold)
        return Verdict("could-not-tell", box, "none", f"{type(error).__name__}: {error}"[:200])


def canonical(answer: str) -> str:
    r"""Writes an answer so that equal numbers and equal notation give equal text.

    For grouping the answers of a majority vote, where comparing each with each would be slow.
    Formulas that are equal but written differently stay apart.

    Args:
        answer: What stood in a box.

    Returns:
        A key, such as `1/2` for both `0.5` and `\frac{1}{2}`.
    """
    notation = take_apart(answer[:MAX_LENGTH])
    number = read_number(notation.value)
    if number is not None:
        return str(number)
    if numbers := read_numbers(notation.value):
        unordered = numbers.kind in ("list", "set")
        values = sorted(set(numbers.values)) if unordered else numbers.values
        return f"{'' if unordered else numbers.brackets}{','.join(map(str, values))}"
    return _SPACE.sub("", notation.value).casefold()


def _judge(box: Notation, gold: Notation, timeout: float) -> _Found:
    outcome, path, reason = _same_values(box, gold, timeout)
    if outcome == "could-not-tell":
        return outcome, path, reason
    for kind, given, wanted in (
        ("unit", box.unit, gold.unit),
        ("name", box.name, gold.name),
    ):
        # 5 cm may be 50 mm; x = 5 may follow from y = 5.
        if given and wanted and given != wanted:
            reason = f"another {kind}: {given!r} instead of {wanted!r}"
            return "could-not-tell", path, reason
    if outcome == "wrong" and box.unit != gold.unit and "\\circ" in box.value + gold.value:
        return "could-not-tell", path, "degrees in one part of it and perhaps in another"
    return outcome, path, reason


def _same_values(box: Notation, gold: Notation, timeout: float) -> _Found:
    """Whether the values are equal, or may be under another unit, names left aside."""
    if not box.value or not gold.value:
        return "could-not-tell", "none", "nothing left to compare"
    if _SPACE.sub("", box.value) == _SPACE.sub("", gold.value):
        return "right", "text", "same text"
    numbers = read_number(box.value), read_number(gold.value)
    if numbers[0] is not None and numbers[1] is not None:
        return _same_number(numbers[0], numbers[1], box, gold)
    # A unit on both sides is compared afterwards; one on one side may be another than was meant.
    factors, hundredfold = conversions(box.unit, gold.unit), _hundredfold(box, gold)
    lists = read_numbers(box.value), read_numbers(gold.value)
    if lists[0] is not None and lists[1] is not None:
        several, others = lists[0], lists[1]
        return _exactly(
            lambda factor: same_numbers(several, others.times(factor)), "list", hundredfold, factors
        )
    if max(len(box.value), len(gold.value)) > MAX_LENGTH:
        return "could-not-tell", "none", f"longer than {MAX_LENGTH} characters"
    based = _BASED.fullmatch(box.value), _BASED.fullmatch(gold.value)
    if based[0] and based[1] and based[0][2] == based[1][2]:
        equal = based[0][1].lower() == based[1][1].lower()
        return _outcome(equal), "base", "same number base"
    if box.worded or gold.worded or _WORD.fullmatch(gold.value):
        return _same_words(box.value, gold.value)
    from ctpo.grading.pool import shared_pool

    comparison = shared_pool().compare(
        box.value, gold.value, timeout, hundredfold=str(hundredfold), factors=factors
    )
    return _outcome(comparison.equal), "latex", comparison.reason


def _same_number(
    one: Fraction | int, other: Fraction | int, box: Notation, gold: Notation
) -> _Found:
    whole = isinstance(one, int) and isinstance(other, int)
    path: Path = "integer" if whole else "rational"
    # What nearly every answer is: no unit, and many thousands of them a second.
    if one == other or (box.percent == gold.percent and bool(box.unit) == bool(gold.unit)):
        return _outcome(one == other), path, "exact numbers"
    factors = conversions(box.unit, gold.unit)
    return _exactly(lambda factor: one == factor * other, path, _hundredfold(box, gold), factors)


def _hundredfold(box: Notation, gold: Notation) -> Fraction:
    """Where one side alone has a percent sign, it is a unit or a hundredth: this times the gold."""
    if box.percent == gold.percent:
        return Fraction(1)
    return Fraction(100) if box.percent else Fraction(1, 100)


def _exactly(
    same: Callable[[Fraction], bool | None],
    path: Path,
    hundredfold: Fraction,
    factors: Sequence[str],
) -> _Found:
    """Judges numbers by `same`: whether the box's are the gold's times a factor."""
    found = same(Fraction(1))
    if found is None:
        reason = "the same numbers, ordered in one and unordered in the other"
        return "could-not-tell", path, reason
    if found or same(hundredfold):
        return "right", path, "exact numbers"
    for factor in factors:
        if "pi" not in factor and same(Fraction(factor)) is not False:
            return "could-not-tell", path, OTHER_UNIT.format(factor)
    return "wrong", path, "exact numbers"


def _outcome(equal: bool | None) -> Outcome:
    return "could-not-tell" if equal is None else "right" if equal else "wrong"


def _same_words(box: str, gold: str) -> _Found:
    if box.casefold() == gold.casefold():
        return "right", "words", "same words"
    if box.isalpha() and gold.isalpha():
        return "wrong", "words", "different words"
    return "could-not-tell", "words", f"{box!r} is not comparable with {gold!r} as words"
