"""Equations: what they say a name is, and when they may stand for that value."""

from __future__ import annotations

import re
from collections.abc import Callable

from ctpo.grading.reading.normal import normal
from ctpo.grading.reading.regions import is_constant
from ctpo.grading.reading.tree import Node, Undecided

_INDEX = re.compile(r"_.*")


def relations(node: Node) -> list[Node]:
    """Splits equations into single ones: `(x,y)=(1,2)` is x = 1 and y = 2, and a = b = 3 two.

    Raises:
        Undecided: If something else than a relation is among them.
    """
    parts = node.args if node.op == "list" else (node,)
    found: list[Node] = []
    names: Node | None = None
    for part in parts:
        if names is not None and part.op == "tuple" and len(part.args) == len(names.args):
            part = Node("rel", (names, part), ("=",))  # (x,y) = (1,2) and (2,1)
        if part.op != "rel":
            if not found or found[-1].op != "rel" or len(found[-1].args) != 2 or len(parts) == 1:
                raise Undecided(f"{part} is no equation")
            part = Node("rel", (found[-1].args[0], part), ("=",))  # x = 1, 2
        left, right = part.args[0], part.args[-1]
        values = normal(right) if len(part.args) == 2 else right
        elements = part.value == ("in",) and values.op == "set" and len(parts) == 1
        if elements or (part.value == ("=",) and values.op == "list"):  # x = \pm 2
            found += [Node("rel", (left, value), ("=",)) for value in values.args]
        elif left.op == right.op == "tuple" and len(part.args) == 2 and _all_names(left):
            if len(left.args) != len(right.args):
                raise Undecided("tuples of different length")
            names = left
            pairs = zip(left.args, right.args, strict=True)
            found += [Node("rel", pair, ("=",)) for pair in pairs]
        elif set(part.value) == {"="} and len(part.args) > 2 and _all_names(part, -1):
            found += [Node("rel", (name, right), ("=",)) for name in part.args[:-1]]
        else:
            found.append(part)
    return found


def _all_names(node: Node, end: int | None = None) -> bool:
    return all(arg.op == "sym" and not is_constant(arg) for arg in node.args[:end])


def named_values(
    node: Node, is_gold: bool, same: Callable[[Node, Node], bool], other: Node
) -> Node:
    """Returns the value, or the values, that equations give to their names.

    Args:
        node: An equation, a name's membership in a set, or a list of them.
        is_gold: Whether it is the gold answer: then the left side must be a name, because the
            answer to "which line" is no number.
        same: Compares two values.
        other: What the value will be compared with.

    Returns:
        A value, a list of the values of one unknown, or what `ordered` holds: the values of
        different unknowns in the order of their names.

    Raises:
        Undecided: If the equations may say more than a value.
    """
    parts = relations(node)
    values = [_value(part, is_gold, same) for part in parts]
    if len(values) == 1:
        return values[0]
    names = [_name(part) for part in parts]
    pair = node.op == "rel" and all(arg.op == "tuple" for arg in node.args)
    if one_unknown(parts) and not pair:
        return Node("list", tuple(values), node.value if node.op == "list" else ",")
    size = names.index(names[0], 1) if names[0] in names[1:] else len(names)
    rows = [names[at : at + size] for at in range(0, len(names), size)]
    in_order = rows[0] == sorted(rows[0]) or other.op == "list"
    if any(row != rows[0] for row in rows) or not in_order:
        raise Undecided("values of several unknowns in no certain order")
    ordered = [Node("ordered", tuple(values[at : at + size])) for at in range(0, len(values), size)]
    return ordered[0] if len(ordered) == 1 else Node("list", tuple(ordered), ",")


def one_unknown(parts: list[Node]) -> bool:
    """Whether equations give several values of one unknown: x = 1 and x = 2, or x_1 and x_2."""
    stems = {_INDEX.sub("", _name(part)) for part in parts}
    return len(stems) == 1 and all(part.value == ("=",) for part in parts)


def _name(part: Node) -> str:
    return str(part.args[0])


def _value(part: Node, is_gold: bool, same: Callable[[Node, Node], bool]) -> Node:
    left, right = part.args[0], part.args[-1]
    if part.value == ("in",):
        if left.op not in ("sym", "tuple"):
            raise Undecided(f"{left} is no name")
        return right
    if set(part.value) != {"="}:
        raise Undecided(f"{part} is no equation")
    if is_constant(left) and not is_constant(right):
        if len(part.args) != 2 or not _stands_for(right, left, is_gold):
            raise Undecided(f"{part} says more than a value")
        return left  # 5 = x
    consistent(part, same)
    if is_constant(left) and is_gold and len(part.args) == 2:
        raise Undecided(f"{part} is no answer")
    if not is_constant(left) and not _stands_for(left, right, is_gold and len(part.args) == 2):
        raise Undecided(f"{part} says more than a value")
    return right


def consistent(chain: Node, same: Callable[[Node, Node], bool]) -> None:
    """Raises `Undecided` where a chain such as x = 2+2 = 5 contradicts itself."""
    right = chain.args[-1]
    for step in chain.args[:-1] if is_constant(right) else ():
        if is_constant(step) and not same(step, right):
            raise Undecided(f"{step} is not {right}, and both are said")


def _stands_for(left: Node, right: Node, is_gold: bool) -> bool:
    """Whether a left side is the name of something and no condition on its parts."""
    if left.op in ("sym", "call", "text"):
        return left.op != "call" or not is_constant(left) or left.has("text")
    if left.op == "blank" or left.has("pow", "num"):
        return False
    if left.op in ("ratio", "div", "tuple"):
        return all(_stands_for(arg, right, is_gold) for arg in left.args)
    if left.op == "mul":
        capitals = all(arg.op == "sym" and arg.value[0].isupper() for arg in left.args)
        return capitals or (not is_gold and all(arg.op == "sym" for arg in left.args))
    if left.op == "add":  # a + b = 5, asked for a + b; x + y = 0 is more likely a line
        plain = all(_stands_for(arg, right, True) for arg in left.args)
        return plain and not is_gold and right != Node("num", (), 0)
    return False
