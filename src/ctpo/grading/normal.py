"""Trees in one form, so that the comparison has fewer to know."""

from __future__ import annotations

import re

from ctpo.grading.regions import INFINITY, MINUS_INFINITY, is_constant
from ctpo.grading.tree import Node, Undecided, number
from ctpo.grading.words import meaning


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
    if node.op == "matrix" and node.value == (1, 1):
        return node.args[0]
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


_COUNTED = re.compile(r"([CPA])_(\d+)")


def counted(node: Node, other: Node) -> Node:
    """Reads C_5^2, A_5^2, C(5,2) and P(5,2) as numbers of choices where the other is a number."""
    if not is_constant(other):
        return node

    def count(part: Node) -> Node:
        if part.op == "pow" and part.args[0].op == "sym" and part.args[1].op == "num":
            found = _COUNTED.fullmatch(part.args[0].value)
            if found and part.args[1].value.denominator == 1:
                sizes = sorted((int(found[2]), int(part.args[1].value)))
                return _choices(found[1], *sizes[::-1])
        if part.op == "call" and part.value in ("C", "P", "A") and len(part.args) == 2:
            if all(arg.op == "num" for arg in part.args):
                return _choices(part.value, *(arg.value for arg in part.args))
        return part

    return node.change(count)


def _choices(letter: str, many: int, few: int) -> Node:
    name = "binomial" if letter == "C" else "perm"
    return Node("call", (number(many), number(few)), name)
