r"""Decide whether two values are equal, with sympy. Runs in a worker process only.

Closed forms are evaluated by mpmath first: a difference in value vetoes whatever sympy would say.
Equality is shown by sympy, or by agreement to 600 digits; what cannot be shown either way raises
`Undecided`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import sympy
from sympy.core.function import AppliedUndef

from ctpo.grading.equality import same_expression
from ctpo.grading.exact import value as exact_value
from ctpo.grading.numeric import evaluate
from ctpo.grading.reading.regions import INFINITY, MINUS_INFINITY
from ctpo.grading.reading.tree import Node, Undecided

# A power or factorial beyond this is left as it is: 10^(10^10) fills the memory.
MAX_EXPONENT = 256
MAX_FACTORIAL = 500

_CONSTANTS = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I, "oo": sympy.oo}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(sympy, name)
    for name in (
        "sin cos tan cot sec csc sinh cosh tanh coth exp log gcd lcm re im sign arg binomial "
        "factorial factorial2 floor"
    ).split()
} | {
    **{f"arc{name}": getattr(sympy, f"a{name}") for name in "sin cos tan cot sec csc".split()},
    **{f"arc{name}": getattr(sympy, f"a{name}") for name in "sinh cosh tanh".split()},
    "ln": sympy.log,
    "conj": sympy.conjugate,
    "Gamma": sympy.gamma,
    "abs": sympy.Abs,
    "ceil": sympy.ceiling,
    "max": sympy.Max,
    "min": sympy.Min,
    "sgn": sympy.sign,
    "Re": sympy.re,
    "Im": sympy.im,
    "cis": lambda angle: sympy.cos(angle) + sympy.I * sympy.sin(angle),
    "perm": lambda many, few: sympy.ff(many, few),
}


# Of a family of solutions: k\pi and n\pi are the same one.
_PARAMETERS = {sympy.Symbol(name, real=True) for name in "kmntsCc"}


class Symbolic:
    """Compares values that are more than rational numbers."""

    def same(self, left: Node, right: Node) -> bool:
        """Whether two values are equal."""
        pair = exact_value(left), exact_value(right)
        if pair[0] is not None and pair[1] is not None:
            return pair[0] == pair[1]
        one, other = expression(left), expression(right)
        if same_expression(one, other):
            return True
        if any(part.op == "call" and part.value == "log" and len(part.args) == 1
               for side in (left, right) for part in side.walk()):  # fmt: skip
            natural = [expression(side, natural=True) for side in (left, right)]
            if same_expression(*natural):
                raise Undecided("equal if the logarithm without a base is the natural one")
        self._other_names(one, other)
        return False

    @staticmethod
    def _other_names(one: Any, other: Any) -> None:  # noqa: ANN401
        """Raises where expressions differ only in a name, or one applies what the other may not."""
        alone = [one.free_symbols - other.free_symbols, other.free_symbols - one.free_symbols]
        if len(alone[0]) == len(alone[1]) == 1 and alone[0] | alone[1] <= _PARAMETERS:
            renamed = one.xreplace({alone[0].pop(): next(iter(alone[1]))})
            if same_expression(renamed, other):
                raise Undecided("equal but for the name of a variable")
        applied = [side.atoms(AppliedUndef) for side in (one, other)]
        if applied[0] != applied[1]:
            raise Undecided("functions that are not known")

    def same_matrix(self, left: Node, right: Node) -> bool:
        """Whether two expressions with matrices are equal."""
        one, other = (_matrix(side) for side in (left, right))
        matrices = [isinstance(side, sympy.MatrixBase) for side in (one, other)]
        if not any(matrices):
            return same_expression(one, other)
        if not all(matrices):
            raise Undecided("a matrix against a number")
        return bool(one.shape == other.shape) and all(map(same_expression, one, other))

    def same_relation(self, left: Node, right: Node) -> bool:
        """Whether two equations or inequalities are multiples of one another."""
        sides = []
        for relation in (left, right):
            if relation.op != "rel" or len(relation.args) != 2:
                raise Undecided(f"no way to compare {relation}")
            apart = expression(relation.args[0]) - expression(relation.args[1])
            sign = relation.value[0]
            flipped = sign in ("<", "<=")
            sides.append((sign.replace("<", ">"), (-apart if flipped else apart).doit()))
        (one_sign, one), (other_sign, other) = sides
        if one_sign != other_sign or one.free_symbols != other.free_symbols or not other:
            return False
        factor = sympy.simplify(one / other)
        if not factor.is_number:
            return bool(one_sign == "=" and _same_curve(one, other))
        return bool(factor.is_nonzero if one_sign in ("=", "!=") else factor.is_positive)

    def place(self, value: Node) -> float:
        """Where a constant is on the line, as a number of 50 digits."""
        if value in (INFINITY, MINUS_INFINITY):
            return float("inf" if value == INFINITY else "-inf")
        exact = exact_value(value)
        with mpmath.workdps(60):
            found = evaluate(expression(value))
            if found is None or not mpmath.isfinite(found) or mpmath.im(found):
                raise Undecided(f"{value} has no place on the line")
            if exact is None:
                found = mpmath.nint(mpmath.re(found) * mpmath.mpf(10) ** 40)
                return sympy.Rational(int(found), 10**40)
        return sympy.Rational(exact.numerator, exact.denominator)


def expression(node: Node, natural: bool = False) -> Any:  # noqa: ANN401 - sympy is untyped
    """Writes a tree as sympy's expression; huge powers stay unevaluated.

    Args:
        node: A tree of one value.
        natural: Whether a logarithm without a base is the natural one, and not to the base 10.

    Raises:
        Undecided: If it is no single value.
    """
    if node.op == "num":
        return sympy.Rational(node.value.numerator, node.value.denominator)
    if node.op == "sym":
        return _CONSTANTS.get(node.value) or sympy.Symbol(node.value, real=True)
    if node.op in ("sum", "prod", "int", "lim"):
        return _limits(node, natural)
    args = [expression(arg, natural) for arg in node.args if arg.op != "matrix"]
    if node.op == "call":
        if len(args) != len(node.args):
            return _matrix(node)
        return _call(node.value, args, natural)
    if node.op in _OPS and len(args) == len(node.args):
        return _OPS[node.op](*args)
    raise Undecided(f"{node} is no single value")


def _call(name: str, args: list[Any], natural: bool) -> Any:  # noqa: ANN401
    if name == "log" and len(args) == 1 and not natural:
        return sympy.log(args[0], 10)
    if name in ("factorial", "factorial2") and _large(args[0], MAX_FACTORIAL):
        return _FUNCTIONS[name](args[0], evaluate=False)
    if name == "binomial" and _large(args[0], MAX_FACTORIAL):
        return sympy.binomial(*args, evaluate=False)
    if name == "binomial" and args[0].is_Symbol and args[1].is_Integer and args[1] < 50:
        return sympy.expand_func(sympy.binomial(*args))
    if name == "perm" and _large(args[0], MAX_FACTORIAL):
        raise Undecided("too many permutations")
    if name in _FUNCTIONS:
        try:
            return _FUNCTIONS[name](*args)
        except TypeError as error:
            raise Undecided(f"{name} of {len(args)} arguments: {error}"[:200]) from error
    return sympy.Function(name)(*args)


def _same_curve(one: Any, other: Any) -> bool:  # noqa: ANN401
    """Whether two terms are zero together, as of xy = 1 and y = 1/x."""
    parts = [sympy.fraction(sympy.together(side)) for side in (one, other)]
    if not sympy.simplify(parts[0][0] / parts[1][0]).is_number:
        return False
    for above, below in parts:
        try:
            apart = not below.free_symbols or sympy.groebner([above, below]).exprs == [1]
        except sympy.PolynomialError:
            apart = False
        if not apart:
            raise Undecided("equal but where one of them has no value")
    return True


def _large(value: Any, most: int) -> bool:  # noqa: ANN401
    return bool(value.is_number) and not (value.is_Integer and abs(value) <= most)


def _power(base: Any, exponent: Any) -> Any:  # noqa: ANN401
    plain = exponent.is_Rational and max(abs(exponent.p), exponent.q) <= MAX_EXPONENT
    small = plain and not (base.is_number and base.count_ops() > 50)
    if exponent.is_number and not small:
        return sympy.Pow(base, exponent, evaluate=False)
    return sympy.Pow(base, exponent)


def _root(value: Any, degree: Any) -> Any:  # noqa: ANN401
    if degree.is_Integer and degree % 2 and value.is_number and value.is_negative:
        return -_power(-value, 1 / degree)
    return _power(value, 1 / degree)


def _product(*factors: Any) -> Any:  # noqa: ANN401
    if any(factor.is_Pow and not factor.is_Symbol for factor in factors):
        return sympy.Mul(*factors, evaluate=all(_tame(factor) for factor in factors))
    return sympy.Mul(*factors)


def _tame(factor: Any) -> bool:  # noqa: ANN401
    return not any(
        power.exp.is_number and not power.exp.is_Rational and power.base.is_number
        for power in factor.atoms(sympy.Pow)
    )


_OPS: dict[str, Callable[..., Any]] = {
    "neg": lambda a: -a,
    "add": sympy.Add,
    "mul": _product,
    "div": lambda a, b: _product(a, sympy.Pow(b, -1)),
    "pow": _power,
    "root": _root,
    "mod": sympy.Mod,
    "percent": lambda a: a / 100,
    "degree": lambda a: a * sympy.pi / 180,
}


def _limits(node: Node, natural: bool) -> Any:  # noqa: ANN401
    body, *ends = (expression(arg, natural) for arg in node.args)
    variable = sympy.Symbol(node.value, real=True)
    if node.op == "lim":
        return sympy.Limit(body, variable, ends[0], "+-" if ends[0].is_finite else "+").doit()
    kinds = {"sum": sympy.Sum, "prod": sympy.Product, "int": sympy.Integral}
    if node.op != "int":  # sums run over whole numbers
        whole = sympy.Symbol(node.value, integer=True)
        return kinds[node.op](body.xreplace({variable: whole}), (whole, *ends))
    return kinds[node.op](body, (variable, *ends))


def _matrix(node: Node) -> Any:  # noqa: ANN401
    if node.op == "matrix":
        return sympy.Matrix(*node.value, [expression(arg) for arg in node.args])
    if not node.has("matrix"):
        return expression(node)
    args = [_matrix(arg) for arg in node.args]
    try:
        if node.op == "transpose":
            return args[0].T
        if node.op == "call" and node.value == "det":
            return args[0].det()
        if node.op == "neg":
            return -args[0]
        if node.op in ("add", "mul"):
            total = args[0]
            for arg in args[1:]:
                total = total + arg if node.op == "add" else total * arg
            return total
        if node.op == "div":
            return args[0] / args[1]
        if node.op == "pow" and args[1].is_Integer and abs(args[1]) <= 64:
            return args[0] ** args[1]
    except (TypeError, ValueError, AttributeError) as error:
        raise Undecided(f"{node}: {error}"[:200]) from error
    raise Undecided(f"{node} is no matrix that can be computed")
