"""Values of trees that are rational numbers, exactly and without sympy."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from ctpo.grading.reading.tree import Node

# Beyond this a power is left to the worker, which has a time limit.
MAX_BITS = 20_000
MAX_FACTORIAL = 400


def value(node: Node) -> Fraction | None:
    """Returns the value of a tree, or None if it is no rational number or takes more to see it."""
    if node.op == "num":
        found: Fraction = node.value
        return found
    compute = _OPS.get(node.op) or (_CALLS.get(node.value) if node.op == "call" else None)
    if compute is None:
        return None
    values = []
    for arg in node.args:
        one = value(arg)
        if one is None:
            return None
        values.append(one)
    try:
        return compute(*values)
    except (ValueError, TypeError, ZeroDivisionError):
        return None


def _product(*factors: Fraction) -> Fraction:
    return math.prod(factors, start=Fraction(1))


def _power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        return None
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    return base ** int(exponent) if abs(exponent) * bits <= MAX_BITS and exponent > -999 else None


def _factorial(number: Fraction) -> Fraction:
    return Fraction(math.factorial(_small(number)))


def _double(number: Fraction) -> Fraction:
    return Fraction(math.prod(range(_small(number), 0, -2)))


def _small(number: Fraction) -> int:
    if number.denominator != 1 or not 0 <= number <= MAX_FACTORIAL:
        raise ValueError(f"{number} is no small whole number")
    return int(number)


def _whole(number: Fraction) -> int:
    if number.denominator != 1:
        raise ValueError(f"{number} is no whole number")
    return int(number)


_OPS: dict[str, Callable[..., Fraction | None]] = {
    "neg": lambda a: -a,
    "add": lambda *args: sum(args, Fraction(0)),
    "mul": _product,
    "div": lambda a, b: a / b,
    "pow": _power,
    "mod": lambda a, b: Fraction(_whole(a) % _whole(b)),
    "percent": lambda a: a / 100,
}
_CALLS: dict[str, Callable[..., Fraction | None]] = {
    "abs": abs,
    "floor": lambda a: Fraction(math.floor(a)),
    "ceil": lambda a: Fraction(math.ceil(a)),
    "factorial": _factorial,
    "factorial2": _double,
    "binomial": lambda a, b: Fraction(math.comb(_small(a), _small(b))),
    "perm": lambda a, b: Fraction(math.perm(_small(a), _small(b))),
    "gcd": lambda *args: Fraction(math.gcd(*map(_whole, args))),
    "lcm": lambda *args: Fraction(math.lcm(*map(_whole, args))),
    "max": lambda *args: max(args),
    "min": lambda *args: min(args),
}
