"""What a reader makes of an answer: a tree of nodes, without sympy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any


class Undecided(Exception):  # noqa: N818 - the third outcome, not a fault
    """Neither equality nor difference could be shown; the message says why."""


@dataclass(frozen=True, slots=True)
class Node:
    """One part of an answer.

    Attributes:
        op: What it is: `num`, `sym`, `add`, `mul`, `div`, `pow`, `call`, `tuple`, `set`, `list`,
            `rel` and so on; `either` holds the two readings of an ambiguous form, the likely first.
        args: Its parts.
        value: What is no part: a number's `Fraction`, a symbol's name, brackets, relation signs.
    """

    op: str
    args: tuple[Node, ...] = ()
    value: Any = None

    def __str__(self) -> str:
        return _show(self)

    def walk(self) -> Iterator[Node]:
        """Yields this node and everything below it."""
        yield self
        for arg in self.args:
            yield from arg.walk()

    def change(self, by: Callable[[Node], Node]) -> Node:
        """Rebuilds the tree from below, each node changed by a function."""
        args = tuple(arg.change(by) for arg in self.args)
        return by(self if args == self.args else Node(self.op, args, self.value))

    def has(self, *ops: str) -> bool:
        """Whether a node of one of these kinds is anywhere in it."""
        return any(node.op in ops for node in self.walk())


def number(value: Fraction | int) -> Node:
    """Returns a number's node."""
    return Node("num", (), Fraction(value))


_SIGNS = {"add": " + ", "mul": "*", "div": "/", "pow": "^", "ratio": ":", "mod": " mod "}
_WORDS = {"union": " ∪ ", "inter": " ∩ ", "minus": " ∖ "}


def _show(node: Node) -> str:
    parts = [str(arg) for arg in node.args]
    if node.op in ("num", "sym", "text", "words"):
        return str(node.value)
    if node.op == "neg":
        return f"-{parts[0]}"
    if node.op in _SIGNS or node.op in _WORDS:
        sign = _SIGNS.get(node.op) or _WORDS[node.op]
        return f"({sign.join(parts)})"
    if node.op == "rel":
        signs = [*node.value, ""]
        return " ".join(f"{part} {sign}" for part, sign in zip(parts, signs, strict=True)).strip()
    if node.op in ("tuple", "set", "list", "angle"):
        brackets = {"set": "{}", "list": "  ", "angle": "⟨⟩"}.get(node.op) or node.value
        return f"{brackets[0]}{', '.join(parts)}{brackets[1]}".strip()
    if node.op == "either":
        return f"{parts[0]} (or {parts[1]})"
    if node.op in ("unit", "percent", "degree"):
        return f"{parts[0]} {node.value or {'percent': '%', 'degree': 'degrees'}[node.op]}"
    if node.op == "base":
        return f"{node.value[0]} in base {node.value[1]}"
    name = node.value if node.op == "call" else node.op
    return f"{name}({', '.join(parts)})"
