"""Whether two of sympy's expressions are equal: by their values first, then by sympy."""

from __future__ import annotations

import sympy

from ctpo.grading.numeric import difference
from ctpo.grading.reading.tree import Undecided


def same_expression(left: sympy.Expr, right: sympy.Expr) -> bool:
    """Whether two expressions are equal; raises `Undecided` where neither can be shown."""
    if not left.free_symbols and not right.free_symbols:
        return _same_number(left, right)
    left, right = left.doit(), right.doit()
    if left == right:
        return True
    apart = _apart_at_points(left, right)
    if all(apart):
        return False
    equal = sympy.simplify(left - right) == 0 or (left - right).equals(0)
    if equal is None:
        raise Undecided(f"could neither show {left} = {right} nor the contrary")
    if equal and any(apart):
        raise Undecided("sympy calls them equal, and their values at a point are not")
    return bool(equal)


# Whole numbers, for formulas that hold of those alone, such as (-1)^n = cos(n*pi); and numbers
# between 0 and 1, for those that hold of probabilities alone.
_POINTS = (
    tuple(map(sympy.Integer, (3, 7, 5, 11, 13))),
    tuple(sympy.Rational(n, 17) for n in (5, 11, 3, 13, 7)),
)


def _apart_at_points(left: sympy.Expr, right: sympy.Expr) -> list[bool]:
    """Whether two formulas have different values at each of the points."""
    symbols = sorted(left.free_symbols | right.free_symbols, key=str)
    apart = []
    for point in _POINTS:
        values = {s: point[i % len(point)] for i, s in enumerate(symbols)}
        apart.append(difference(left.xreplace(values), right.xreplace(values)) == "apart")
    return apart


def _same_number(left: sympy.Expr, right: sympy.Expr) -> bool:
    # Values first: they need no exact evaluation, which for 10^(10^10) fills the memory.
    values = difference(left, right)
    if values == "apart":
        return False
    left, right = left.doit(), right.doit()
    for value in (left, right):
        if value.has(sympy.nan, sympy.zoo):
            raise Undecided("a division by zero")
    if left == right:
        return True
    if left.is_Rational and right.is_Rational:
        return False
    values = values or difference(left, right)
    equal = (left - right).equals(0)
    if values == "apart" or equal is False:
        return False
    if equal is None and values is None:
        raise Undecided(f"could neither show {left} = {right} nor the contrary")
    return True
