"""Whether two trees mean the same, down to the single values, which a leaf's comparison decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ctpo.grading.equations import consistent, named_values, one_unknown, relations
from ctpo.grading.forms import bases, cases, every, is_equated, joined, letters, of_one, words
from ctpo.grading.ratios import ratios
from ctpo.grading.reading.normal import counted, normal
from ctpo.grading.reading.regions import Region, intervals, is_constant, is_plain, is_region, merged
from ctpo.grading.reading.tree import Node, Undecided

_SEVERAL = ("list", "set")
_NUMBER_SETS = ("reals", "integers", "naturals", "rationals", "complexes")


class Leaves(Protocol):
    """How single values are compared: exactly in the caller's process, with sympy in a worker."""

    def same(self, left: Node, right: Node) -> bool:
        """Whether two values are equal; raises `Undecided`."""

    def same_relation(self, left: Node, right: Node) -> bool:
        """Whether two equations or inequalities say the same; raises `Undecided`."""

    def same_matrix(self, left: Node, right: Node) -> bool:
        """Whether two expressions with matrices are equal; raises `Undecided`."""

    def place(self, value: Node) -> float:
        """Where a value is on the line, equal only for equal ones; raises `Undecided`."""


class Comparison:
    """Compares an answer's tree with a gold answer's."""

    def __init__(self, leaves: Leaves) -> None:
        self.leaves = leaves

    def same(self, answer: Node, gold: Node) -> bool:
        """Whether they mean the same.

        Raises:
            Undecided: If neither could be shown, or the form leaves it open.
        """
        return self._same(normal(answer), normal(gold))

    def _same(self, answer: Node, gold: Node) -> bool:
        if answer == gold:
            return True
        ops = (answer.op, gold.op)
        if "text" in ops:
            return words(answer, gold)
        if "blank" in ops:
            return answer.op == gold.op
        if "dots" in ops or any(part.op == "dots" for part in (*answer.args, *gold.args)):
            if answer.op == gold.op and self._in_order(answer, gold):
                return True
            raise Undecided("what the dots leave out")
        if is_equated(answer) or is_equated(gold):
            return self._equations(answer, gold)
        if "cases" in ops:
            return cases(answer, gold, self._same)
        if "base" in ops:
            return bases(answer, gold)
        if is_region(answer) or is_region(gold):
            return self._regions(answer, gold)
        if "ordered" in ops or "tuple" in ops or "angle" in ops or set(ops) & set(_SEVERAL):
            return self._several(answer, gold)
        if answer.has("matrix") or gold.has("matrix"):
            return self._matrices(answer, gold)
        if "ratio" in ops:
            return ratios(answer, gold, self._same)
        if "class" in ops:
            if answer.op == gold.op:
                return self._in_order(answer, gold)
            class_, value = (answer, gold) if answer.op == "class" else (gold, answer)
            if self._same(class_.args[0], value):
                raise Undecided("a number, or all that are congruent to it")
            return False
        if answer.has("either", "unit", "rel", "list", "tuple", "set", "text", "blank"):
            raise Undecided(f"{answer} is no single value")
        for one, other in ((answer, gold), (gold, answer)):
            if one.op == "sym" and one.value in _NUMBER_SETS:
                if other.op == "sym" and other.value in _NUMBER_SETS:
                    return False
                raise Undecided(f"no way to compare {other} with the set {one.value}")
        if answer.op == gold.op == "sym" and answer.value.casefold() == gold.value.casefold():
            raise Undecided("the same letter but for its case")
        if letters(answer) == letters(gold) is not None:
            raise Undecided("the same letters, in one with a mark over or around them")
        return self.leaves.same(counted(answer, gold), counted(gold, answer))

    def _equations(self, answer: Node, gold: Node) -> bool:
        if is_equated(answer) and is_equated(gold):
            return self._both_equated(answer, gold)
        equated, other = (answer, gold) if is_equated(answer) else (gold, answer)
        value = normal(named_values(equated, equated is gold, self.leaves.same, other))
        return self._same(value, other) if equated is answer else self._same(other, value)

    def _both_equated(self, answer: Node, gold: Node) -> bool:
        left, right = relations(answer), relations(gold)
        if len(left) == len(right) == 1:
            return self._relation(left[0], right[0])
        if len(left) != len(right):
            raise Undecided("another number of equations")
        values = [[one.args[1] for one in side] for side in (left, right)]
        names = [[one.args[0] for one in side] for side in (left, right)]
        roots = one_unknown(left + right)
        if all(len(set(side)) == len(side) for side in names) and set(names[0]) == set(names[1]):
            pairs = [(one, next(o for o in right if o.args[0] == one.args[0])) for one in left]
            same = every(self._relation, pairs)
            if not same and roots and self._as_sets(*values):
                raise Undecided("the same values under each other's names")
            return same
        if roots:
            return self._as_sets(*values)
        return self._as_sets(left, right)

    def _relation(self, one: Node, other: Node) -> bool:
        if one == other:
            return True
        if one.value == other.value and one.args[0] == other.args[0] and len(one.args) == 2:
            try:
                return self.same(one.args[1], other.args[1])
            except Undecided:
                if len(other.args) != 2 or is_constant(other.args[1]):
                    raise
        if "in" in (*one.value, *other.value):
            if self.same(one.args[-1], other.args[-1]):
                raise Undecided(f"another name: {one.args[0]} instead of {other.args[0]}")
            return False
        chains = [side.op == "rel" and len(side.args) > 2 for side in (one, other)]
        if any(chains):
            for side in (one, other):
                consistent(side, self.same)
            ends = [Node("rel", (r.args[0], r.args[-1]), ("=",)) for r in (one, other)]
            return self._relation(*ends)
        heads = one.args[0], other.args[0]
        if all(h.op == "call" and [a.op for a in h.args] == ["sym"] for h in heads):  # f(x), f(t)
            names = {heads[1].args[0]: heads[0].args[0]}
            renamed = other.change(lambda node: names.get(node, node))
            if one.args[0] == renamed.args[0] and self.same(one.args[-1], renamed.args[-1]):
                return True
        if self.leaves.same_relation(one, other):
            return True
        named = [side.args[0].op in ("sym", "call") for side in (one, other)]
        if all(named) and self.same(one.args[1], other.args[1]):
            raise Undecided(f"another name: {one.args[0]} instead of {other.args[0]}")
        return False

    def _regions(self, answer: Node, gold: Node) -> bool:
        if answer.op == gold.op == "rel" and len(answer.args) == len(gold.args) == 2:
            if not (is_plain(answer) and is_plain(gold)):
                return self.leaves.same_relation(answer, gold)
        if answer.op == gold.op == "list" and not (of_one(answer) and of_one(gold)):
            return self._as_sets(answer.args, gold.args)
        for one, other in ((answer, gold), (gold, answer)):
            if is_region(one) and other.op not in ("tuple", "set", "list") and not is_region(other):
                raise Undecided(f"no way to compare {one} with {other}")
        left, right = (intervals(side, self.leaves.place) for side in (answer, gold))
        same = self._same_region(left, right)
        if left.name and right.name and left.name != right.name:
            blank = Node("blank") in (left.name, right.name)
            if same and not blank:
                raise Undecided(f"another name: {left.name} instead of {right.name}")
        return same

    def _same_region(self, left: Region, right: Region) -> bool:
        if len(left.intervals) == len(right.intervals) == 1:
            (one,), (other,) = left.intervals, right.intervals
            alike = (one.low_open, one.high_open) == (other.low_open, other.high_open)
            ends = ((one.low, other.low), (one.high, other.high))
            return alike and every(self._same, ends)
        pieces = [merged(side.intervals, self.leaves.place) for side in (left, right)]
        if len(pieces[0]) != len(pieces[1]):
            return False
        for one, other in zip(*pieces, strict=True):
            if (one.low_open, one.high_open) != (other.low_open, other.high_open):
                return False
        return every(
            self._same,
            [
                ends
                for one, other in zip(*pieces, strict=True)
                for ends in ((one.low, other.low), (one.high, other.high))
            ],
        )

    def _several(self, answer: Node, gold: Node) -> bool:
        kinds = (answer.op, gold.op)
        if all(kind in _SEVERAL for kind in kinds):
            same = self._as_sets(answer.args, gold.args)
            numbers = kinds == ("list", "list") and answer.args[0].op != "tuple"
            if same and numbers and not self._as_often(answer.args, gold.args):
                raise Undecided("the same but for how often each is named")
            return same
        if "matrix" in kinds:
            return self._vectors(answer, gold)
        plain = [kind not in (*_SEVERAL, "tuple", "angle", "ordered") for kind in kinds]
        for one, other in ((answer, gold), (gold, answer)):
            if one.op == "call" and len(one.value) == 1 and other.op == "tuple":  # a point P(1,2)
                point = Node("tuple", one.args, "()")
                return self._same(point, other) if one is answer else self._same(other, point)
        for one, other in ((answer, gold), (gold, answer)):
            if one.op == "set" and len(one.args) == 1 and one.args[0].op == other.op == "tuple":
                return self._in_order(one.args[0], other) and one.args[0].value == other.value
        if any(plain):
            return self._one_of_several(answer, gold)
        if all(kind in ("tuple", "angle") for kind in kinds):
            same = self._in_order(answer, gold)
            # A vector in angles is one in parentheses.
            if same and (answer.value or "()") != (gold.value or "()"):
                if len(gold.args) == 2 and "angle" not in kinds:
                    return False
                raise Undecided("the same numbers in other brackets")
            return same
        if "ordered" in kinds or kinds[0] == kinds[1]:
            if self._in_order(answer, gold):
                return True
            if self._as_sets(answer.args, gold.args):
                raise Undecided("the same numbers in another order")
            return False
        if not self._as_sets(answer.args, gold.args):
            return False
        raise Undecided("the same numbers, ordered in one and unordered in the other")

    def _one_of_several(self, answer: Node, gold: Node) -> bool:
        pair = (answer, gold)
        several, one = pair[::-1] if gold.op in (*_SEVERAL, "tuple", "angle") else pair
        if several.op == "set" and len(several.args) == 1:
            pair = (several.args[0], one) if several is answer else (one, several.args[0])
            return self._same(*pair)
        if several.op not in _SEVERAL:
            alone = several.op == "angle" and len(several.args) == 1
            if not is_constant(one) or (alone and self._same(several.args[0], one)):
                raise Undecided(f"no way to compare {one} with {several}")
            return False
        if not several.args:
            raise Undecided(f"the empty set against {one}")
        if several.op == "list" and joined(several, one):
            raise Undecided("several numbers, or one with commas in it")
        found = [self._same(part, one) for part in several.args]
        if all(found) or (several is gold and several.value == "or" and any(found)):
            raise Undecided(f"one of several: {several}")
        return False

    def _vectors(self, answer: Node, gold: Node) -> bool:
        if len(answer.args) == len(gold.args) and self._in_order(answer, gold):
            raise Undecided("a matrix against a list of the same numbers")
        return False

    def _matrices(self, answer: Node, gold: Node) -> bool:
        if answer.op == gold.op == "matrix":
            return bool(answer.value == gold.value) and self._in_order(answer, gold)
        return self.leaves.same_matrix(answer, gold)

    def _in_order(self, left: Node, right: Node) -> bool:
        if len(left.args) != len(right.args):
            return False
        return every(self._same, zip(left.args, right.args, strict=True))

    def _as_sets(self, left: Sequence[Node], right: Sequence[Node]) -> bool:
        """Whether every element has its equal on the other side, both ways."""
        return every(self._among, [(one, right, False) for one in left]) and every(
            self._among, [(one, left, True) for one in right]
        )

    def _as_often(self, left: Sequence[Node], right: Sequence[Node]) -> bool:
        """Whether lists of the same elements have each of them equally often."""
        rest = list(right)
        if len(left) != len(rest):
            return False
        if len(set(left)) == len(left) and len(set(rest)) == len(rest):
            return True
        for one in left:
            found = next((other for other in rest if self._same(one, other)), None)
            if found is None:
                return False
            rest.remove(found)
        return True

    def _among(self, element: Node, others: Sequence[Node], flipped: bool) -> bool:
        doubt = None
        for other in others:
            try:
                if self._same(other, element) if flipped else self._same(element, other):
                    if (element.op == "set") != (other.op == "set"):
                        raise Undecided("an element, or a set that holds it alone")
                    return True
            except Undecided as undecided:
                doubt = undecided
        if doubt:
            raise doubt
        return False
