"""An answer, read: its value apart from unit and percent sign, in each of its readings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from ctpo.grading.reading.latex import read
from ctpo.grading.reading.quantity import LetterUnit, compound, letter_unit
from ctpo.grading.reading.surface import strip
from ctpo.grading.reading.tree import Node, Undecided, number
from ctpo.grading.reading.units import canonical_unit, changes_value
from ctpo.grading.reading.words import Choice, choice, date

_MARKS = ("unit", "percent", "degree")
MAX_LENGTH = 2000
# 2 mg may be a weight or a product; where it is set apart, it is a weight.
_UNIT_OR_PRODUCT = re.compile(r"(?<=\d)( ?)(mg|kg|ft|nm|dm|mi|in|st|nd|rd|th)$")
_ORDINAL = re.compile(r"(?:(?<!1)(?:1st|2nd|3rd)|(?:[04-9]|1[123])th)$")


@dataclass(frozen=True)
class Reading:
    """What an answer may mean.

    Attributes:
        tree: The value.
        unit: Its unit in one spelling, or "".
        percent: Whether a percent sign followed.
    """

    tree: Node
    unit: str = ""
    percent: bool = False

    def __str__(self) -> str:
        return f"{self.tree}{' %' * self.percent}{f' [{self.unit}]' if self.unit else ''}"

    def times(self, factor: Fraction | Node) -> Node:
        """The value with every number multiplied."""
        by = factor if isinstance(factor, Node) else number(factor)
        return _times(self.tree, by)


@dataclass(frozen=True)
class Answer:
    """An answer, read.

    Attributes:
        text: What is left without typography.
        currency: Of what a money sign stood in it, or "".
        choice: The letter of a choice, and its text, if it is one.
    """

    text: str
    currency: str
    choice: Choice | None

    def readings(self, is_gold: bool = False) -> tuple[list[Reading], bool]:
        """Returns what it may mean, the likely reading first, and whether that one is to count.

        Args:
            is_gold: Whether it is the gold answer. Behind a number there, kg is perhaps a product.

        Raises:
            Undecided: If it cannot be read, or holds more than one kind of unit.
        """
        if len(self.text) > MAX_LENGTH:
            raise Undecided(f"longer than {MAX_LENGTH} characters")
        if day := date(self.text):
            return [Reading(day)], True
        if both := compound(self.text, self.currency):
            return [Reading(number(both[0]), both[1])], True
        unit = letter_unit(self.text)
        try:
            readings, sure = self._plain(is_gold)
        except Undecided:
            if unit is None:
                raise
            readings, sure = [], True
        if unit is None or any(reading.unit for reading in readings):
            return readings, sure
        if unit.certain:
            readings.insert(0, self._with(unit))
        else:
            readings.append(self._with(unit))
        return readings, sure

    def _with(self, unit: LetterUnit) -> Reading:
        value = read(unit.before)[0]
        return self._undress(Node("unit", (value,), unit.name))

    def _plain(self, is_gold: bool) -> tuple[list[Reading], bool]:
        """Reads it with every letter a name."""
        tree, slashed = read(self.text)
        trees = [tree]
        if tree.has("either"):
            trees = [tree.change(lambda node, n=at: _pick(node, n)) for at in (0, 1)]  # type: ignore[misc]
        if slashed:
            trees.append(read(self.text, tight=True)[0])
        sure = not slashed
        if found := _UNIT_OR_PRODUCT.search(self.text):
            product = " ".join(found[2])
            trees.append(read(self.text[: found.start(2)] + product)[0])
            apart = bool(found[1] or _ORDINAL.search(self.text))
            sure = sure and (apart or not is_gold)
        return [self._undress(one) for one in trees], sure

    def _undress(self, tree: Node) -> Reading:
        tree, marks = _undressed(tree)
        if tree.has("unit"):
            raise Undecided("a unit within a formula")
        if self.currency:
            marks |= {self.currency}
        units = marks - {"%"}
        return Reading(tree, "/".join(sorted(units)), "%" in marks)


def take_apart(raw: str) -> Answer:
    """Strips an answer and looks whether it is a choice."""
    if len(raw) > 2 * MAX_LENGTH:  # not worth the time that it would take
        raw = " ".join(raw.split())
    if len(raw) > 2 * MAX_LENGTH:
        return Answer(raw, "", None)
    surface = strip(raw)
    return Answer(surface.text, surface.currency, choice(surface.text))


def _pick(node: Node, at: int) -> Node:
    return node.args[at] if node.op == "either" else node


def _undressed(node: Node) -> tuple[Node, set[str]]:
    """Takes off what stands behind the value, or behind the last of several, or behind each."""
    if node.op in _MARKS:
        inner, marks = _undressed(node.args[0])
        mark = {"percent": "%", "degree": "degree"}.get(node.op)
        if mark is None and changes_value(node.value):
            raise Undecided(f"words that are no unit: {node.value!r}")
        return inner, marks | {mark or canonical_unit(node.value)}
    if node.op in ("list", "tuple", "set", "angle", "neg", "rel", "union", "either", "ratio"):
        parts = [_undressed(arg) for arg in node.args]
        marks = set().union(*(marks for _, marks in parts)) if parts else set()
        if len(marks) > 1:
            raise Undecided(f"several units: {', '.join(sorted(marks))}")
        return Node(node.op, tuple(part for part, _ in parts), node.value), marks
    if node.op == "add":
        parts = [_undressed(arg) for arg in node.args]
        if parts[0][1] and all(marks == parts[0][1] for _, marks in parts):
            return Node("add", tuple(part for part, _ in parts)), parts[0][1]
    if node.op in ("pm", "mp"):
        (base, first), (rest, last) = map(_undressed, node.args)
        if last and first in (last, set()):
            return Node(node.op, (base, rest)), last
    if node.op == "mul":
        last_part, marks = _undressed(node.args[-1])
        if marks and not any(arg.has(*_MARKS) for arg in node.args[:-1]):
            return Node("mul", (*node.args[:-1], last_part)), marks
    return node, set()


def _times(node: Node, by: Node) -> Node:
    if node.op in ("list", "tuple", "set", "angle", "union", "inter", "minus"):
        return Node(node.op, tuple(_times(arg, by) for arg in node.args), node.value)
    if node.op == "rel":
        return Node("rel", (node.args[0], *(_times(arg, by) for arg in node.args[1:])), node.value)
    if node.op in ("text", "base", "matrix") or node.value in ("oo", "reals"):
        return node
    return Node("mul", (by, node))
