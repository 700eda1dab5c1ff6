"""Ratios, and times of the day, which are written like them."""

from __future__ import annotations

from collections.abc import Callable

from ctpo.grading.forms import every
from ctpo.grading.reading.tree import Node, Undecided

Same = Callable[[Node, Node], bool]


def ratios(answer: Node, gold: Node, same: Same) -> bool:
    """Whether ratios are equal; `same` compares two values."""
    if answer.op != gold.op:
        raise Undecided("a ratio against a number")
    if len(answer.args) != len(gold.args):
        return False
    if every(same, zip(answer.args, gold.args, strict=True)):
        return True
    # 12:00 and 1:05 are times of the day.
    sides = (answer, gold)
    if any(side.value or Node("num", (), 0) in side.args for side in sides):
        return False
    crossed = [
        (Node("mul", (a, gold.args[0])), Node("mul", (g, answer.args[0])))
        for a, g in zip(answer.args[1:], gold.args[1:], strict=True)
    ]
    found = every(same, crossed)
    clock = any(
        len(side.args) == 2 and side.args[1].op == "num" and side.args[1].value >= 10
        for side in sides
    )
    if found and clock:
        raise Undecided("the same ratio, or another time of the day")
    return found
