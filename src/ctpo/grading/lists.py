"""Lists, pairs, intervals and sets of rational numbers, compared exactly and without sympy."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from ctpo.grading.numbers import MAX_DIGITS, read_number

Kind = Literal["list", "set", "pair", "interval", "tuple"]

_NAME = re.compile(r"\s*[A-Za-z](?:_\{?\w+\}?)?\s*=\s*")


@dataclass(frozen=True)
class Numbers:
    """Several numbers and what holds them together.

    Attributes:
        kind: `list` (no brackets) and `set` have no order; `pair` is `(a, b)`, which is an interval
            too; `interval` has a square bracket; `tuple` is in parentheses.
        brackets: The opening and the closing one, or "".
        values: The numbers as written.
    """

    kind: Kind
    brackets: str
    values: tuple[Fraction | int, ...]

    def times(self, factor: Fraction) -> Numbers:
        """The same with every number multiplied."""
        return replace(self, values=tuple(value * factor for value in self.values))


def read_numbers(text: str) -> Numbers | None:
    r"""Reads `1, 2`, `\{1, 2\}`, `(1, 2)`, `[1, 2)` and the like.

    Args:
        text: LaTeX without dollar signs and units. In a list without brackets each number may have
            its name, as in `x = 1, y = 2`, which is then not read here: names have a meaning.

    Returns:
        The numbers, or None if there are not at least two or one of them is no rational number.
    """
    if len(text) > MAX_DIGITS or "," not in text:
        return None
    inside, brackets = text.strip(), ""
    for opening, closing in ((r"\{", r"\}"), ("(", ")"), ("[", "]"), ("(", "]"), ("[", ")")):
        if inside.startswith(opening) and inside.endswith(closing):
            inside = inside[len(opening) : -len(closing)]
            brackets = opening[-1] + closing[-1]
            break
    values = []
    for part in inside.split(","):
        value = read_number(part.strip())
        if value is None:
            return None
        values.append(value)
    return Numbers(_kind(brackets, len(values)), brackets, tuple(values))


def _kind(brackets: str, count: int) -> Kind:
    if not brackets:
        return "list"
    if brackets == "{}":
        return "set"
    if brackets == "()":
        return "pair" if count == 2 else "tuple"
    return "interval" if count == 2 else "tuple"


def same_numbers(left: Numbers, right: Numbers) -> bool | None:
    """Whether two collections are the same.

    Args:
        left: One.
        right: The other.

    Returns:
        True or False; None where one has an order and the other has not, and the numbers agree.
    """
    unordered = [one.kind in ("list", "set") for one in (left, right)]
    if all(unordered):
        return set(left.values) == set(right.values)
    if any(unordered):
        return None if set(left.values) == set(right.values) else False
    return left.brackets == right.brackets and left.values == right.values
