r"""Decide whether two LaTeX formulas are equal, exactly. Runs in a worker process only.

math-verify reads the LaTeX; the comparison is our own, because math-verify compares floats and so
calls 1/2^99 and 1/2^98 equal. Closed forms are evaluated by mpmath first: a difference in value
vetoes whatever sympy would say. Equality is shown by sympy, or by agreement to 600 digits; what
cannot be shown either way raises `Undecided`.
"""

from __future__ import annotations

import re
from typing import Any

import sympy
from math_verify import LatexExtractionConfig, parse
from sympy.core.relational import Relational

from ctpo.grading.numeric import difference

_DECIMAL = re.compile(r"(?<![0-9])([0-9]*)\.([0-9]+)")
_FUNCTIONS = "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp min max gcd"
_BARE = re.compile(rf"(?<![A-Za-z\\])(pi|infty|{'|'.join(_FUNCTIONS.split())})(?![A-Za-z])")
_BARE_SQRT = re.compile(r"(?<![A-Za-z])\\?sqrt\s*\(")  # 4\sqrt(2) is written and meant as well
_LOGARITHM = re.compile(r"\\log(?![A-Za-z])(?!\s*_)")  # without a base
_SUBSCRIPT = re.compile(r"(?<![0-9])_([0-9])(?![0-9])")
_NO_WORDS = re.compile(r"\\(?:begin|end)\{[a-z]*\}|\\[A-Za-z]+")

_OPERATOR = re.compile(rf"\\operatorname\s*\{{\s*\\?({'|'.join(_FUNCTIONS.split())})\s*\}}")
# Of a number alone; that the degrees are an angle's and no unit's has been seen to before.
_DEGREES = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})")

# What the parser reads as something else rather than reject.
_MISREAD = (
    (re.compile(r"[0-9]\s+[0-9]"), "two numbers side by side"),
    (re.compile(r"[0-9]_"), "a number base"),
    (re.compile(r"[0-9][eE][+-]?[0-9]"), "a power of ten too large to read"),
    (re.compile(r"\\circ|\\degree"), "an angle in degrees"),
    (re.compile(r"\\approx|\\[lc]?dots|\.\.\.|~"), "an approximation"),
)
_PROSE = re.compile(r"[A-Za-z]{4,}")


class Undecided(Exception):  # noqa: N818 - the third outcome, not a fault
    """Neither equality nor difference could be shown; the message says why."""


def compare(left: str, right: str) -> tuple[bool, str]:
    """Whether two LaTeX formulas mean the same.

    Args:
        left: LaTeX without dollar signs, units and the like.
        right: Same.

    Returns:
        True or False, either shown to hold, and a word on how.

    Raises:
        Undecided: If one cannot be read, or neither could be shown.
    """
    one, other = _read(left), _read(right)
    # sympy has truth values of its own.
    same = bool(_same(one, other))
    if not same and (_LOGARITHM.search(left) or _LOGARITHM.search(right)):
        natural = (_read(_LOGARITHM.sub(r"\\ln ", text)) for text in (left, right))
        if _same(*natural):
            raise Undecided("equal if the logarithm without a base is the natural one")
    return same, f"compared as {_kind(one)} and {_kind(other)}"


def _kind(value: Any) -> str:  # noqa: ANN401
    if isinstance(value, sympy.Expr):
        return "an expression" if value.free_symbols else "a number"
    return f"a {type(value).__name__}"


def _read(text: str) -> Any:  # noqa: ANN401 - sympy's classes have no common base
    """Parses LaTeX, refusing what the parser is known to misread."""
    # pi/2 would be read as p·i/2, 2**3 not at all.
    latex = _braced_roots(_BARE.sub(r"\\\1", text.replace("**", "^")))
    latex = _SUBSCRIPT.sub(r"_{\1}", latex)
    latex = _OPERATOR.sub(r"\\\1 ", latex).replace(r"\lg", r"\log_{10}")
    latex = latex.replace(r"\varnothing", r"\emptyset")
    latex = _DEGREES.sub(r"{\\left(\\frac{\1\\pi}{180}\\right)}", latex)
    for pattern, problem in _MISREAD:
        if pattern.search(latex):
            raise Undecided(f"{text!r} holds {problem}")
    if _PROSE.search(_NO_WORDS.sub(" ", latex)):
        raise Undecided(f"{text!r} holds prose")
    # Decimals as fractions, so that nothing is ever rounded.
    latex = _DECIMAL.sub(lambda m: rf"\frac{{{m[1]}{m[2]}}}{{1{'0' * len(m[2])}}}", latex)
    found = parse(
        rf"\boxed{{{latex}}}",
        [LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False)],
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )
    if not found:
        raise Undecided(f"{text!r} could not be read")
    return _imaginary(found[0])


def _braced_roots(text: str) -> str:
    r"""Writes `sqrt(a)` as `\sqrt{a}`, the closing parenthesis being the one that balances."""
    while found := _BARE_SQRT.search(text):
        depth, end = 1, found.end()
        while depth and end < len(text):
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        if depth:
            raise Undecided(f"{text!r} leaves a parenthesis open")
        text = rf"{text[: found.start()]}\sqrt{{{text[found.end() : end - 1]}}}{text[end:]}"
    return text


def _imaginary(value: Any) -> Any:  # noqa: ANN401
    """The letter i is the imaginary unit; the parser takes it for a variable."""
    letters = {s: sympy.I for s in getattr(value, "free_symbols", ()) if s.name == "i"}
    return value.xreplace(letters) if letters else value


def _same(left: Any, right: Any) -> bool:  # noqa: ANN401
    for one, other in ((left, right), (right, left)):
        if isinstance(one, sympy.FiniteSet) and isinstance(other, sympy.Expr):
            return _same_set(one.args, (other,))  # {5} and 5 are the same answer
        if isinstance(one, sympy.FiniteSet) and isinstance(other, sympy.Tuple):
            if not _same_set(one.args, other.args):
                return False
            raise Undecided("the same numbers, ordered in one and unordered in the other")
        if isinstance(one, sympy.Interval) and isinstance(other, sympy.Tuple):
            # (1,2) is read as an interval, (2,1) as a pair.
            return (
                one.left_open and one.right_open and _same(sympy.Tuple(one.start, one.end), other)
            )
        if isinstance(one, sympy.Interval) and isinstance(other, (Relational, sympy.And)):
            if isinstance(other, sympy.Eq) or len(other.free_symbols) != 1:
                raise Undecided(f"no way to compare an interval with {other}")
            return _same(one, other.as_set())  # 1 < x < 2 and (1,2)
    if isinstance(left, sympy.FiniteSet) and isinstance(right, sympy.FiniteSet):
        return _same_set(left.args, right.args)
    if isinstance(left, sympy.Tuple) and isinstance(right, sympy.Tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, sympy.Interval) and isinstance(right, sympy.Interval):
        open_alike = (left.left_open, left.right_open) == (right.left_open, right.right_open)
        return open_alike and _same(left.start, right.start) and _same(left.end, right.end)
    if isinstance(left, sympy.Union) and isinstance(right, sympy.Union):
        return _same_set(left.args, right.args)
    if isinstance(left, sympy.MatrixBase) and isinstance(right, sympy.MatrixBase):
        return left.shape == right.shape and all(map(_same, left, right))
    if isinstance(left, Relational) and isinstance(right, Relational):
        return _same_relation(left, right)
    if isinstance(left, sympy.And) and isinstance(right, sympy.And):
        return _same_set(left.args, right.args)  # a < x < b
    if isinstance(left, sympy.Expr) and isinstance(right, sympy.Expr):
        return _same_expression(left, right)
    if left == right:
        return True
    if isinstance(left, sympy.Set) and isinstance(right, sympy.Set):
        if any(isinstance(part, Relational) for part in (*left.args, *right.args)):
            raise Undecided("equations on one side, which may name the parts of the other")
        return False
    raise Undecided(f"no way to compare a {type(left).__name__} with a {type(right).__name__}")


def _same_set(left: tuple[Any, ...], right: tuple[Any, ...]) -> bool:
    """Whether every element has its equal on the other side, both ways."""
    return all(_among(one, right) for one in left) and all(_among(one, left) for one in right)


def _among(element: Any, others: tuple[Any, ...]) -> bool:  # noqa: ANN401
    doubt = None
    for other in others:
        try:
            if _same(element, other):
                return True
        except Undecided as undecided:
            doubt = undecided
    if doubt:
        raise doubt
    return False


def _same_relation(left: Relational, right: Relational) -> bool:
    """Whether two equations or inequalities are multiples of one another."""
    sides = []
    for relation in (left, right):
        if not all(isinstance(side, sympy.Expr) for side in relation.args):
            raise Undecided(f"no way to compare the sides of {relation}")
        difference = relation.args[0] - relation.args[1]
        flipped = relation.rel_op in ("<", "<=")
        operator = relation.rel_op.replace("<", ">")
        sides.append((operator, (-difference if flipped else difference).doit()))
    (one_operator, one), (other_operator, other) = sides
    if one_operator != other_operator or one.free_symbols != other.free_symbols:
        return False
    factor = sympy.simplify(one / other)
    if not factor.is_number:
        return False
    return bool(factor.is_nonzero if one_operator in ("==", "!=") else factor.is_positive)


def _same_expression(left: sympy.Expr, right: sympy.Expr) -> bool:
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
