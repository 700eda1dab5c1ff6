"""Nodes for sums, products and lists, and what their form leaves open."""

from __future__ import annotations

from fractions import Fraction

from ctpo.grading.exact import value
from ctpo.grading.reading.tree import Node, Undecided, number


def negated(node: Node) -> Node:
    """Puts a minus before what may have a unit, or two readings."""
    if node.op == "num" and node.value:
        return number(-node.value)
    if node.op == "mod":
        raise Undecided("a sign before a remainder")
    if node.op == "either":
        joined, apart = node.args
        first = Node("list", (negated(apart.args[0]), *apart.args[1:]), ",")
        return Node("either", (negated(joined), first))
    if node.op in ("unit", "percent", "degree"):
        return Node(node.op, (negated(node.args[0]),), node.value)
    return Node("neg", (node,))


def sum_of(terms: list[Node]) -> Node:
    """Adds terms; one alone stays what it is."""
    if len(terms) == 1:
        return terms[0]
    if any(term.op == "mod" for term in terms):
        raise Undecided("a sum and a remainder without brackets")
    return Node("add", tuple(terms))


def product(left: Node, right: Node) -> Node:
    """Multiplies by one more factor."""
    if "either" in (left.op, right.op):
        left, right = (node.args[0] if node.op == "either" else node for node in (left, right))
    return Node("mul", (*(left.args if left.op == "mul" else (left,)), right))


def ratio_of(node: Node) -> Fraction | None:
    """The value of a fraction of whole numbers as written."""
    if node.op == "div" and all(arg.op == "num" for arg in node.args) and node.args[1].value:
        above, below = (arg.value for arg in node.args)
        if above.denominator == below.denominator == 1:
            return Fraction(above / below)
    return None


def parted(item: Node) -> tuple[Node, ...]:
    """1,100,20 has no thousands although 1,100 could be a number."""
    return item.args[1].args if item.op == "either" and item.args[1].op == "list" else (item,)


def as_decimal(items: list[Node]) -> Node | None:
    """What two numbers with a bare comma between them are if the comma is a decimal one."""
    if len(items) != 2:
        return None
    whole, part = items
    negative = whole.op == "neg" or (whole.op == "num" and whole.value < 0)
    items = [whole.args[0] if whole.op == "neg" else whole, part]
    whole = items[0]
    if not all(item.op == "num" and item.value.denominator == 1 for item in items):
        return None
    digits = part.args[0].value if part.args else str(part.value)
    if part.value < 0:
        return None
    size = abs(whole.value) + Fraction(int(part.value), 10 ** len(digits))
    return number(-size if negative else size)


def approximated(exact: Node, decimal: Node) -> Node:
    """What is exact, or else the decimal that stands for it, if it can."""
    one, other = value(exact), value(decimal)
    if one is not None and other is not None and abs(one - other) > abs(one) / 20:
        raise Undecided("an approximation that is none")
    return Node("either", (exact, decimal))
