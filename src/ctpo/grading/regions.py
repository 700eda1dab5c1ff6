r"""Sets of real numbers: intervals, inequalities, their unions, intersections and differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from ctpo.grading.tree import Node, Undecided

INFINITY = Node("sym", (), "oo")
MINUS_INFINITY = Node("neg", (INFINITY,))
REALS = Node("sym", (), "reals")
_OPS = ("union", "inter", "minus")
_SIGNS = ("<", ">", "<=", ">=", "!=")

Order = Callable[[Node], "Fraction | float"]


@dataclass(frozen=True)
class Interval:
    """A connected set of real numbers; a point has closed and equal ends."""

    low: Node
    high: Node
    low_open: bool
    high_open: bool


@dataclass(frozen=True)
class Region:
    """Intervals, and of what name an inequality says that it is in them, if any."""

    intervals: tuple[Interval, ...]
    name: Node | None = None


def is_region(node: Node) -> bool:
    """Whether a tree is a set of real numbers and can be nothing else."""
    if node.op in _OPS or node == REALS:
        return True
    if node.op == "rel":
        return all(sign in _SIGNS for sign in node.value)
    if node.op == "list":
        return all(part.op == "rel" and is_region(part) for part in node.args)
    return node.op == "add" and any(is_region(part) for part in node.args)


def intervals(node: Node, order: Order) -> Region:
    """Reads a tree as a set of real numbers.

    Args:
        node: The tree.
        order: Gives the place of an end on the line, for what takes more than reading.

    Raises:
        Undecided: If it is none, or may be one of another kind.
    """
    if node.op == "tuple" and len(node.args) == 2:
        low, high = node.args
        opening, closing = node.value
        infinite = (low == MINUS_INFINITY, high in (INFINITY, MINUS_INFINITY))
        return Region(
            (Interval(low, high, infinite[0] or opening == "(", infinite[1] or closing == ")"),)
        )
    if node == REALS:
        return Region((Interval(MINUS_INFINITY, INFINITY, True, True),))
    if node.op == "set":
        return Region(tuple(Interval(one, one, False, False) for one in node.args))
    if node.op == "rel":
        return _inequality(node)
    if node.op == "list":
        return _several(node, order)
    if node.op in _OPS:
        left, right = (intervals(part, order) for part in node.args)
        if node.op == "union":
            return Region(left.intervals + right.intervals, left.name)
        return _combined(node.op, left, right, order)
    if node.op == "add" and all(part.op == "neg" for part in node.args[1:]):
        left = intervals(node.args[0], order)  # \mathbb{R}-\{0\}
        for part in node.args[1:]:
            left = _combined("minus", left, intervals(part.args[0], order), order)
        return left
    raise Undecided(f"{node} is no set of real numbers")


def _inequality(node: Node) -> Region:
    parts, signs = node.args, node.value
    if signs == ("!=",):
        name, value = parts if _named(parts[0]) else parts[::-1]
        return Region(
            (
                Interval(MINUS_INFINITY, value, True, True),
                Interval(value, INFINITY, True, True),
            ),
            name,
        )
    if any(sign[0] != signs[0][0] or sign == "!=" for sign in signs):
        raise Undecided("inequalities in both directions")
    if signs[0][0] == ">":
        parts, signs = parts[::-1], signs[::-1]
    opened = [len(sign) == 1 for sign in signs]
    if len(parts) == 3 and _named(parts[1]):
        return Region((Interval(parts[0], parts[2], opened[0], opened[1]),), parts[1])
    if len(parts) != 2 or _named(parts[0]) == _named(parts[1]):
        raise Undecided(f"{node} is no inequality of one variable")
    if _named(parts[0]):
        return Region((Interval(MINUS_INFINITY, parts[1], True, opened[0]),), parts[0])
    return Region((Interval(parts[0], INFINITY, opened[0], True),), parts[1])


def _named(node: Node) -> bool:
    """Whether it is a name: x, or f(x), but not the sine or the size of something."""
    applied = node.op == "call" and len(node.value.rstrip("'⁻")) == 1
    return (node.op in ("sym", "blank") or applied) and not is_constant(node)


def is_plain(node: Node) -> bool:
    """Whether inequalities say of one name between which constants it is."""
    if node.op == "list":
        return all(map(is_plain, node.args))
    names = [arg for arg in node.args if not is_constant(arg)]
    return len(names) == 1 and _named(names[0]) and len(node.args) <= 3


def is_constant(node: Node) -> bool:
    """Whether it is a number, if not always a rational one."""
    return not any(
        part.op in ("blank", "text")
        or (part.op == "call" and len(part.value.rstrip("'⁻")) == 1)
        or (part.op == "sym" and part.value not in ("pi", "e", "i", "oo"))
        for part in node.walk()
    )


def _several(node: Node, order: Order) -> Region:
    regions = [intervals(part, order) for part in node.args]
    if any(region.name != regions[0].name for region in regions):
        raise Undecided("inequalities of several variables")
    joined = Region(tuple(one for region in regions for one in region.intervals), regions[0].name)
    if node.value == "or":
        return joined
    common = regions[0]
    for region in regions[1:]:
        common = _combined("inter", common, region, order)
    # "x < 1 and x > 2" is said where or is meant.
    return common if common.intervals else joined


def _combined(op: str, left: Region, right: Region, order: Order) -> Region:
    other = right.intervals if op == "inter" else _complement(right.intervals, order)
    found = []
    for one in left.intervals:
        for two in other:
            low, low_open = max(
                ((one.low, one.low_open), (two.low, two.low_open)),
                key=lambda end: (order(end[0]), end[1]),
            )
            high, high_open = min(
                ((one.high, one.high_open), (two.high, two.high_open)),
                key=lambda end: (order(end[0]), not end[1]),
            )
            piece = Interval(low, high, low_open, high_open)
            if not _is_empty(piece, order):
                found.append(piece)
    return Region(tuple(found), left.name)


def _complement(pieces: tuple[Interval, ...], order: Order) -> tuple[Interval, ...]:
    rest, start, start_open = [], MINUS_INFINITY, True
    for piece in merged(pieces, order):
        rest.append(Interval(start, piece.low, start_open, not piece.low_open))
        start, start_open = piece.high, not piece.high_open
    rest.append(Interval(start, INFINITY, start_open, True))
    return tuple(piece for piece in rest if not _is_empty(piece, order))


def _is_empty(piece: Interval, order: Order) -> bool:
    low, high = order(piece.low), order(piece.high)
    return low > high or (low == high and (piece.low_open or piece.high_open))


def merged(pieces: tuple[Interval, ...], order: Order) -> list[Interval]:
    """Sorts intervals and joins those that touch, so that equal sets have equal lists."""
    whole = [piece for piece in pieces if not _is_empty(piece, order)]
    whole.sort(key=lambda piece: (order(piece.low), piece.low_open))
    found: list[Interval] = []
    for piece in whole:
        last = found[-1] if found else None
        if last is not None:
            gap = order(piece.low) - order(last.high)
            if gap < 0 or (gap == 0 and not (piece.low_open and last.high_open)):
                if (order(piece.high), not piece.high_open) > (
                    order(last.high),
                    not last.high_open,
                ):
                    found[-1] = Interval(last.low, piece.high, last.low_open, piece.high_open)
                continue
        found.append(piece)
    return found
