"""An answer judged against a gold answer, with whatever compares their single values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from ctpo.grading.compare import Comparison, Leaves
from ctpo.grading.reading.answer import Answer, Reading, take_apart
from ctpo.grading.reading.regions import is_constant
from ctpo.grading.reading.tree import Node, Undecided, number
from ctpo.grading.reading.units import COUNTING, OTHER_UNIT, SCALES, conversions

Outcome = Literal["right", "wrong", "could-not-tell"]

# Space between two digits or two words separates them; elsewhere LaTeX does not print it.
# And 1, 234 are two numbers, where 1,234 is one.
_SPACE = re.compile(r"(?<![0-9A-Za-z.,])\s+|(?<=,)\s+(?![0-9.])|\s+(?![0-9A-Za-z.])")


@dataclass(frozen=True)
class Finding:
    """An outcome, its grounds, and how both sides were read where they were."""

    outcome: Outcome
    reason: str
    answer: str = ""
    gold: str = ""
    tree: Node | None = None


def compact(text: str) -> str:
    """Leaves out the spaces that LaTeX does not print."""
    return _SPACE.sub("", text)


def judge(answer: str, gold: str, leaves: Leaves) -> Finding:
    """Judges an answer.

    Args:
        answer: What stands in the box.
        gold: The gold answer, without a box.
        leaves: What compares single values; whatever else than `Undecided` it raises passes.
    """
    given, wanted = take_apart(answer), take_apart(gold)
    if not given.text or not wanted.text:
        return _other_number(given, wanted) or Finding("could-not-tell", "nothing left to compare")
    if compact(given.text) == compact(wanted.text) and given.currency == wanted.currency:
        return Finding("right", "same text")
    try:
        return _choices(given, wanted, leaves) or _values(given, wanted, leaves)
    except Undecided as undecided:
        return _other_number(given, wanted) or Finding("could-not-tell", str(undecided))
    except RecursionError:  # 1/2/3/4/... a thousand times
        return Finding("could-not-tell", "nested too deeply")


_SCRAPS = re.compile(r"[\s()\[\]{}+*/=,;:_-]*(?:(\d+(?:\.\d+)?)[\s()\[\]{}+*/=,;:_-]*)?")


def _other_number(given: Answer, wanted: Answer) -> Finding | None:
    """Judges what cannot be read, as `23 -` and `(12`, where a whole number is asked for.

    With one number alone among signs, or none, nobody reads another number in it. With two the
    signs may stand for what is to be done with them.
    """
    found = _SCRAPS.fullmatch(given.text) if len(given.text) < 99 else None
    if not found or given.currency or not re.fullmatch(r"[+-]?\d{1,4000}", wanted.text):
        return None
    if found[1] and Fraction(found[1]) == abs(int(wanted.text)):
        return None
    return Finding(
        "wrong",
        "it cannot be read, and the number is not in it",
        "",
        wanted.text,
        number(int(wanted.text)),
    )


def _choices(given: Answer, wanted: Answer, leaves: Leaves) -> Finding | None:
    """Judges choices by their letters; None if it is for the values to decide."""
    one, other = given.choice, wanted.choice
    if one is None and other is None:
        return None
    if one is None or other is None:
        chosen = one or other
        assert chosen is not None
        if not chosen.rest:
            if other and not re.search(chosen.letter, given.text, re.IGNORECASE):
                raise Undecided("a choice's letter is asked for, and this is none")
            return None
        rest = take_apart(chosen.rest)
        pair = (rest, wanted) if one else (given, rest)
        return _values(*pair, leaves)
    if not one.rest or not other.rest:
        outcome: Outcome = "right" if one.letter == other.letter else "wrong"
        return Finding(outcome, "the letters of choices", one.letter, other.letter)
    found = judge(one.rest, other.rest, leaves)
    if found.outcome == ("right" if one.letter == other.letter else "wrong"):
        return found
    return Finding(
        "could-not-tell", "the letters of the choices say one thing, their texts another"
    )


def _values(given: Answer, wanted: Answer, leaves: Leaves) -> Finding:
    one, other = _readings(given, False), _readings(wanted, True)
    (answers, counts), (golds, gold_counts) = one, other
    if _shows_decimal(golds, wanted) and len(answers) == 2 and answers[0].tree.op == "list":
        answers = answers[::-1]
    if golds[0].unit or is_constant(golds[0].tree):  # 5 m, and the gold answer knows no m
        answers = _unit_first(answers)
    else:
        answers = _unit_last(answers)
    if answers[0].unit:
        golds = _unit_first(golds)
    elif not is_constant(answers[0].tree):
        golds = _unit_last(golds)
    first = _reading(answers[0], golds[0], leaves)
    rest = [(a, g) for a in answers for g in golds if (a, g) != (answers[0], golds[0])]
    strict = not (counts and gold_counts)
    if first.outcome == "right" and not strict:
        return first
    for pair in rest if first.outcome != "could-not-tell" else ():
        if _reading(*pair, leaves).outcome != first.outcome:
            reason = f"{pair[0]} against {pair[1]} is another reading, with another outcome"
            return Finding("could-not-tell", reason, str(answers[0]), str(golds[0]))
    return first


def _unit_first(readings: list[Reading]) -> list[Reading]:
    return sorted(readings, key=lambda one: not one.unit) if len(readings) == 2 else readings


def _unit_last(readings: list[Reading]) -> list[Reading]:
    return sorted(readings, key=lambda one: bool(one.unit)) if len(readings) == 2 else readings


def _readings(side: Answer, is_gold: bool) -> tuple[list[Reading], bool]:
    try:
        return side.readings(is_gold)
    except Undecided as undecided:
        name = "the gold answer" if is_gold else "the answer"
        raise Undecided(f"{name} cannot be read: {undecided}") from None


def _shows_decimal(golds: list[Reading], wanted: Answer) -> bool:
    """Whether a gold answer is a number with a decimal point, and so 3,14 one with a comma."""
    return len(golds) == 1 and golds[0].tree.op == "num" and "." in wanted.text


def _reading(answer: Reading, gold: Reading, leaves: Leaves) -> Finding:
    shown = str(answer), str(gold), answer.tree
    try:
        same, reason = _same(answer, gold, leaves)
    except Undecided as undecided:
        return Finding("could-not-tell", str(undecided), *shown)
    units = {*answer.unit.split("/"), *gold.unit.split("/")}
    if answer.unit != gold.unit and units & COUNTING:
        reason = f"{answer.unit or gold.unit!r} on one side alone"
        return Finding("could-not-tell", reason, *shown)
    vague = "degree" in units and units & SCALES
    if answer.unit and gold.unit and answer.unit != gold.unit and not vague:
        reason = f"another unit: {answer.unit!r} instead of {gold.unit!r}"
        return Finding("could-not-tell", reason, *shown)
    if not same and _has_degrees(answer.tree) != _has_degrees(gold.tree):
        reason = "degrees in one part of it and perhaps in another"
        return Finding("could-not-tell", reason, *shown)
    return Finding("right" if same else "wrong", reason, *shown)


def _same(answer: Reading, gold: Reading, leaves: Leaves) -> tuple[bool, str]:
    same = Comparison(leaves).same
    found = same(answer.tree, gold.tree)
    if not found and answer.percent != gold.percent:
        # A percent sign on one side alone is a unit or a hundredth.
        found = same(answer.tree, gold.times(Fraction(100) if answer.percent else Fraction(1, 100)))
    if not found:
        for factor in conversions(answer.unit, gold.unit):
            if same(answer.tree, gold.times(_factor(factor))):
                raise Undecided(OTHER_UNIT.format(factor))
    return found, "compared as " + " and ".join(_kind(side.tree) for side in (answer, gold))


def _factor(text: str) -> Node:
    if "pi" not in text:
        return number(Fraction(text))
    parts = [
        Node("sym", (), "pi") if part == "pi" else number(int(part)) for part in text.split("/")
    ]
    return Node("div", tuple(parts))


def _kind(tree: Node) -> str:
    kinds = {
        "list": "a list", "set": "a set", "tuple": "a tuple", "angle": "a vector",
        "rel": "a relation",
        "text": "words", "matrix": "a matrix", "base": "a number in a base", "num": "a number",
        "union": "a set", "inter": "a set", "minus": "a set", "ratio": "a ratio",
    }  # fmt: skip
    return kinds.get(tree.op, "an expression" if tree.has("sym") else "a number")


def _has_degrees(tree: Node) -> bool:
    """Whether degrees are in it other than under a sine or the like."""
    if tree.op == "degree":
        return True
    return tree.op != "call" and any(map(_has_degrees, tree.args))
