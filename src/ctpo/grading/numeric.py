"""Closed forms as numbers, by mpmath alone: the check on what sympy says.

The evaluation walks the expression itself and calls mpmath, so that a fault in sympy's simplifier,
in its assumptions or in its own evaluation does not show up on both sides of the check.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import mpmath
import sympy

# Two numbers are apart if their difference stays as it is at the next precision, and together if it
# shrinks to the last one.
DIGITS = (40, 160, 640)
_STEADY = mpmath.mpf(10) ** -10

_CONSTANTS: dict[Any, Callable[[], Any]] = {
    sympy.pi: lambda: +mpmath.pi,
    sympy.E: lambda: +mpmath.e,
    sympy.I: lambda: mpmath.mpc(0, 1),
    sympy.GoldenRatio: lambda: +mpmath.phi,
    sympy.EulerGamma: lambda: +mpmath.euler,
}
_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    sympy.Abs: abs,
    sympy.floor: mpmath.floor,
    sympy.ceiling: mpmath.ceil,
    sympy.factorial: mpmath.factorial,
    sympy.factorial2: mpmath.fac2,
    sympy.FallingFactorial: mpmath.ff,
    sympy.Mod: mpmath.fmod,
    sympy.Max: max,
    sympy.Min: min,
    sympy.binomial: mpmath.binomial,
    sympy.gamma: mpmath.gamma,
    sympy.exp: mpmath.exp,
    sympy.log: mpmath.log,
    sympy.conjugate: mpmath.conj,
    sympy.re: mpmath.re,
    sympy.im: mpmath.im,
} | {
    getattr(sympy, name): getattr(mpmath, name)
    for name in (
        "sin cos tan cot sec csc asin acos atan acot asec acsc "
        "sinh cosh tanh coth asinh acosh atanh zeta"
    ).split()
}


class NoValue(Exception):  # noqa: N818 - an outcome, not a fault
    """The expression is no closed form, or has no finite value."""


def difference(left: sympy.Expr, right: sympy.Expr) -> Literal["apart", "together"] | None:
    """Says whether two closed forms have the same value.

    Returns:
        `apart` where the values differ for certain, `together` where they agree to 600 digits, and
        None where one of them is no closed form or the question stays open.
    """
    before = None
    for digits in DIGITS:
        with mpmath.workdps(digits + 20):
            try:
                one, other = _value(left), _value(right)
                gap, scale = abs(one - other), max(abs(one), abs(other))
            except (NoValue, ValueError, ZeroDivisionError, OverflowError, TypeError):
                return None
            if not mpmath.isfinite(gap):
                return None
            if before is not None:
                # A difference that is there does not depend on the precision; one that is rounding
                # does, also where both sides cancel to zero.
                if gap and abs(gap - before) <= _STEADY * gap:
                    return "apart"
            before = gap
    small = mpmath.mpf(10) ** -(DIGITS[-1] - 40)
    # Where both cancel to nothing the scale is itself rounding, so 1 is the least scale there is.
    return "together" if gap <= small * max(scale, 1) else None


def evaluate(expression: sympy.Expr) -> Any:  # noqa: ANN401
    """Returns a closed form's value at mpmath's present precision, or None if it is none."""
    try:
        return _value(expression)
    except (NoValue, ValueError, ZeroDivisionError, OverflowError, TypeError):
        return None


def _value(expression: Any) -> Any:  # noqa: ANN401 - sympy's and mpmath's classes have no common base
    if expression.is_Integer:
        return mpmath.mpf(int(expression))
    if expression.is_Rational:
        return mpmath.mpf(int(expression.p)) / int(expression.q)
    if expression in _CONSTANTS:
        return _CONSTANTS[expression]()
    if expression.is_Add:
        return mpmath.fsum(map(_value, expression.args))
    if expression.is_Mul:
        return mpmath.fprod(map(_value, expression.args))
    if expression.is_Pow:
        base, exponent = expression.args
        if exponent.is_Integer and abs(int(exponent)) < 10**6:
            return mpmath.power(_value(base), int(exponent))
        return mpmath.power(_value(base), _value(exponent))
    if expression.func in _FUNCTIONS:
        return _FUNCTIONS[expression.func](*map(_value, expression.args))
    raise NoValue(str(expression.func))
