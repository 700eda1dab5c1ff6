"""Trees in one form, so that the comparison has fewer to know."""

from __future__ import annotations

import re

from ctpo.grading.reading.regions import INFINITY, MINUS_INFINITY, is_constant
from ctpo.grading.reading.tree import Node, Undecided, number
from ctpo.grading.reading.words import meaning


def normal(node: Node) -> Node:
    r"""Writes out `\pm`, lists within lists and unions of sets of elements."""
    return _spread(node.change(_tidy))


def _tidy(node: Node) -> Node:
    if node.op == "num" and node.args:
        return Node("num", (), node.value)
    if node.op == "text":
        return meaning(node)
    if node.op == "neg" and node.args[0].op == "num":
        return Node("num", (), -node.args[0].value)
    if node.op == "add" and node.args[0] == Node("num", (), 0) and len(node.args) == 2:
        return node.args[1]
    if node.op == "union" and all(part.op == "set" for part in node.args):
        return Node("set", node.args[0].args + node.args[1].args)
    if node.op == "tuple" and len(node.args) == 2:  # nothing ends at infinity and has it
        low = "(" if node.args[0] == MINUS_INFINITY else node.value[0]
        high = ")" if node.args[1] in (INFINITY, MINUS_INFINITY) else node.value[1]
        return Node("tuple", node.args, low + high)
    if node.op == "class":
        rest, modulus = node.args
        if not all(arg.op == "num" and arg.value.denominator == 1 for arg in node.args):
            raise Undecided("a congruence of other things than whole numbers")
        return Node("class", (number(rest.value % modulus.value), modulus))
    if node.op == "rel" and node.args[0].op == "call" and node.args[0].value == "abs":
        return _between(node)
    if node.op == "matrix" and node.value == (1, 1):
        return node.args[0]
    return node


def _between(node: Node) -> Node:
    """Writes |x| < 3 as -3 < x < 3, and |x| > 3 as x < -3 or x > 3."""
    (inside,), end, sign = node.args[0].args, node.args[1], node.value[0]
    named = inside.op == "sym" and not is_constant(inside)
    if not named or len(node.args) != 2 or end.op != "num" or end.value <= 0:
        return node
    low = number(-end.value)
    if sign in ("<", "<="):
        return Node("rel", (low, inside, end), (sign, sign))
    if sign in (">", ">="):
        below = Node("rel", (inside, low), (sign.replace(">", "<"),))
        return Node("list", (below, Node("rel", (inside, end), (sign,))), "or")
    return node


def _spread(node: Node) -> Node:
    if node.op in ("list", "set"):
        parts: list[Node] = []
        for part in map(_spread, node.args):
            parts += part.args if part.op == "list" else [part]
        return (
            parts[0]
            if node.op == "list" and len(parts) == 1
            else Node(node.op, tuple(parts), node.value)
        )
    if node.op == "rel" or not node.has("pm", "mp"):
        return node
    if node.op == "tuple" and sum(part.op in ("pm", "mp") for part in node.walk()) > 1:
        raise Undecided("several signs of plus or minus in a tuple")
    return Node("list", tuple(_signed(node, sign) for sign in (1, -1)), ",")


def _signed(node: Node, sign: int) -> Node:
    def choose(part: Node) -> Node:
        if part.op not in ("pm", "mp"):
            return part
        base, rest = part.args
        rest = rest if (sign == 1) == (part.op == "pm") else Node("neg", (rest,))
        return _tidy(Node("add", (base, rest)))

    return node.change(choose)


_COUNTED = re.compile(r"([CPA])_(\d+|[nmk])")


def counted(node: Node, other: Node) -> Node:
    """Reads C_5^2, A_5^2, C(5,2), P(5,2) as numbers of choices where the other has no such name."""
    if any(part.op in ("sym", "call") and part.value[0] in "CPA" for part in _count(other).walk()):
        return node
    return _count(node)


def _count(node: Node) -> Node:
    return node.change(_count_one)


def _count_one(part: Node) -> Node:
    args = part.args
    if part.op == "pow" and args[0].op == "sym" and (found := _COUNTED.fullmatch(args[0].value)):
        letter, few = found[1], args[1]
        if not found[2].isdigit():
            many = Node("sym", (), found[2])
            return _choices(letter, many, few) if few.op in ("num", "sym") else part
        if few.op == "num" and few.value.denominator == 1:
            sizes = sorted((int(found[2]), int(few.value)))
            return _choices(letter, *map(number, sizes[::-1]))
    if part.op == "call" and part.value in ("C", "P", "A") and len(args) == 2:
        if all(arg.op == "num" for arg in args):
            return _choices(part.value, *args)
    return part


def _choices(letter: str, many: Node, few: Node) -> Node:
    return Node("call", (many, few), "binomial" if letter == "C" else "perm")
