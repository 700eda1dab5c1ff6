"""What the form of an answer says, before any value is compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ctpo.grading.reading.regions import is_constant, is_plain
from ctpo.grading.reading.tree import Node, Undecided
from ctpo.grading.reading.words import same_time, same_words, spells


def letters(node: Node) -> str | None:
    r"""The letters of a product such as AB, of \overline{AB} or of |AB|; None of anything else."""
    if node.op == "call" and node.value == "abs":
        node = node.args[0]
    if node.op == "mul" and all(arg.op == "sym" and arg.value.isupper() for arg in node.args):
        return "".join(arg.value for arg in node.args)
    if node.op == "sym" and len(node.value) > 2:
        return node.value.split()[-1]
    return None


def joined(listed: Node, one: Node) -> bool:
    """Whether a number is what the digits of several are without the commas."""
    if one.op != "num" or not all(arg.op == "num" and arg.value >= 0 for arg in listed.args):
        return False
    first, *rest = (str(arg.value) for arg in listed.args)
    grouped = [first + "".join(part.zfill(3) for part in rest)]  # 000 is read as 0
    if len(rest[-1]) == 3:  # 1,23,456, as in India
        grouped.append(first + "".join(rest))
    return str(one.value) in grouped


def of_one(node: Node) -> bool:
    """Whether inequalities are all of one name."""
    names = {arg for part in node.args for arg in part.args if not is_constant(arg)}
    return is_plain(node) and len(names) == 1


def every(same: Callable[..., bool], of: Iterable[tuple[Any, ...]]) -> bool:
    """Whether all are the same; a difference counts also where another pair leaves a doubt."""
    doubt = None
    for one in of:
        try:
            if not same(*one):
                return False
        except Undecided as undecided:
            doubt = undecided
    if doubt:
        raise doubt
    return True


def is_equated(node: Node) -> bool:
    """Whether an equation is in it, or a name and the set that it is in."""
    if node.op == "list":
        return any(map(is_equated, node.args))
    return node.op == "rel" and any(sign in ("=", "in") for sign in node.value)


def words(answer: Node, gold: Node) -> bool:
    """Whether words say the same, or spell what was read as a product."""
    if answer.op == gold.op:
        return same_words(answer, gold)
    for text, other in ((answer, gold), (gold, answer)):
        if text.op == "text" and text.value.startswith("time "):
            return same_time(text, other)
    return spells(answer, gold) if answer.op == "text" else spells(gold, answer)


def bases(answer: Node, gold: Node) -> bool:
    """Whether numbers are equal of which one at least names its base."""
    if answer.op == gold.op:
        (digits, base), (others, other) = answer.value, gold.value
        if base == other:
            return bool(digits == others)
        if int(digits, base) == int(others, other):
            raise Undecided("the same number in another base")
        return False
    based, plain = (answer, gold) if answer.op == "base" else (gold, answer)
    digits, base = based.value
    if plain.op != "num":
        raise Undecided(f"a number in base {base} against {plain}")
    if base == 10:
        return bool(plain.value == int(digits))
    # Whoever leaves the base out means the one that was asked for.
    if str(plain.value) == digits and based is gold:
        return True
    if plain.value in (int(digits, base), int(digits) if digits.isdigit() else None):
        raise Undecided(f"equal in base 10, or but for the base {base}")
    return False


def cases(answer: Node, gold: Node, same: Callable[[Node, Node], bool]) -> bool:
    """Whether values are the same under the same conditions, in any order."""
    if answer.op != gold.op or len(answer.args) != len(gold.args):
        raise Undecided("cases, and other ones or none")
    found: list[tuple[Node, Node]] = []
    for case in answer.args:
        value, condition = case.args
        found += [
            (value, other.args[0]) for other in gold.args if _alike(condition, other.args[1], same)
        ]
    if len(found) != len(answer.args):
        raise Undecided("cases under other conditions")
    return every(same, found)


def _alike(one: Node, other: Node, same: Callable[[Node, Node], bool]) -> bool:
    try:
        return one.op == other.op and same(one, other)
    except Undecided:
        return False
