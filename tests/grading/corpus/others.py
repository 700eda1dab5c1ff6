"""Gold answers that are no single number, with what means the same and what nearly does."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.grading.corpus.numbers import Gold


def _polynomial(rng: random.Random) -> Gold:
    a, b = rng.randint(1, 9), rng.randint(1, 9)
    equal = {
        "expanded": f"x^2+{a + b}x+{a * b}",
        "factors turned": f"(x+{b})(x+{a})",
        "terms turned": f"{a * b}+x^2+{a + b}x",
        "spelled": rf"x \cdot x + {a + b} \cdot x + {a * b}",
    }
    unequal = {
        "constant off": f"x^2+{a + b}x+{a * b + 1}",
        "sign in a factor": f"(x-{a})(x+{b})",
        "degree": f"x^3+{a + b}x+{a * b}",
        "variable": f"(y+{a})(y+{b})",
    }
    return Gold("polynomial", f"(x+{a})(x+{b})", equal, unequal)


def _distinct(rng: random.Random, count: int) -> list[int]:
    return rng.sample(range(-20, 60), count)


def _tuple(rng: random.Random) -> Gold:
    a, b, c = _distinct(rng, 3)
    equal = {
        "decimal points": f"({a}.0,{b}.0,{c}.0)",
        "a sum inside": f"({a - 1}+1,{b},{c})",
        "a fraction inside": rf"(\frac{{{2 * a}}}{{2}},{b},{c})",
    }
    unequal = {
        "permuted": f"({b},{a},{c})",
        "rotated": f"({c},{a},{b})",
        "one missing": f"({a},{b})",
        "one more": f"({a},{b},{c},1)",
        "opposite": f"({-a or 1},{b},{c})",
    }
    return Gold("tuple", f"({a},{b},{c})", equal, unequal)


def _set(rng: random.Random) -> Gold:
    a, b, c = _distinct(rng, 3)
    equal = {
        "permuted": rf"\{{{c},{a},{b}\}}",
        "repeated": rf"\{{{a},{b},{c},{a}\}}",
        "no braces": f"{b}, {c}, {a}",
        "a sum inside": rf"\{{{a - 1}+1,{b},{c}\}}",
    }
    unequal = {
        "one missing": rf"\{{{a},{b}\}}",
        "one more": rf"\{{{a},{b},{c},61\}}",
        "one off": rf"\{{{a},{b},61\}}",
        "one alone": str(a),
    }
    return Gold("set", rf"\{{{a},{b},{c}\}}", equal, unequal)


def _list(rng: random.Random) -> Gold:
    a, c = rng.randint(1, 9), rng.choice((2, 3, 5, 7))
    b = rng.randint(1, 9)
    text = rf"{a}+{b}\sqrt{{{c}}},{a}-{b}\sqrt{{{c}}}"
    equal = {
        "permuted": rf"{a}-{b}\sqrt{{{c}}}, {a}+{b}\sqrt{{{c}}}",
        "plus minus": rf"{a} \pm {b}\sqrt{{{c}}}",
        "in braces": rf"\{{{text}\}}",
        "root absorbs": rf"{a}+\sqrt{{{b * b * c}}},{a}-\sqrt{{{b * b * c}}}",
    }
    unequal = {
        "one alone": rf"{a}+{b}\sqrt{{{c}}}",
        "twice the same": rf"{a}+{b}\sqrt{{{c}}},{a}+{b}\sqrt{{{c}}}",
        "one off": rf"{a}+{b}\sqrt{{{c}}},{a + 1}-{b}\sqrt{{{c}}}",
    }
    return Gold("list", text, equal, unequal)


def _interval(rng: random.Random) -> Gold:
    a, b = sorted(_distinct(rng, 2))
    equal = {"decimal points": f"[{a}.0,{b}.0)", "a sum inside": f"[{a},{b - 1}+1)"}
    unequal = {
        "open": f"({a},{b})",
        "closed": f"[{a},{b}]",
        "other end open": f"({a},{b}]",
        "end off": f"[{a},{b + 1})",
        "to infinity": rf"[{a},\infty)",
    }
    return Gold("interval", f"[{a},{b})", equal, unequal)


def _union(rng: random.Random) -> Gold:
    a, b, c = sorted(_distinct(rng, 3))
    text = rf"(-\infty,{a}]\cup[{b},{c})"
    equal = {"turned": rf"[{b},{c})\cup(-\infty,{a}]"}
    unequal = {
        "open": rf"(-\infty,{a})\cup[{b},{c})",
        "one part": rf"(-\infty,{a}]",
        "end off": rf"(-\infty,{a}]\cup[{b},{c + 1})",
    }
    return Gold("union of intervals", text, equal, unequal)


def _angles(rng: random.Random) -> Gold:
    a, b = sorted(rng.sample(range(1, 180), 2))
    equal = {
        "no unit": f"{a}, {b}",
        "permuted": rf"{b}^\circ, {a}^\circ",
        "sign of degrees": f"{a}°, {b}°",
        "one sign": rf"{a}, {b}^\circ",
    }
    unequal = {
        "one alone": rf"{b}^\circ",
        "one off": rf"{a + 1}^\circ, {b + 1}^\circ",
        "last off": f"{a}, {b + 1}",
    }
    return Gold("angles", rf"{a}^\circ, {b}^\circ", equal, unequal)


def _choice(rng: random.Random) -> Gold:
    letter, other = rng.sample("ABCDE", 2)
    equal = {
        "parentheses": f"({letter})",
        "text": rf"\text{{{letter}}}",
        "bold": rf"\textbf{{({letter})}}",
    }
    unequal = {
        "another": other,
        "another in parentheses": f"({other})",
        "another in text": rf"\text{{{other}}}",
    }
    return Gold("choice", letter, equal, unequal)


def _word(rng: random.Random) -> Gold:
    word, other = rng.sample(("Monday", "Tuesday", "odd", "even", "Alice", "Blake"), 2)
    equal = {
        "lower case": rf"\text{{{word.lower()}}}",
        "plain": word,
        "roman": rf"\mathrm{{{word}}}",
    }
    return Gold("word", rf"\text{{{word}}}", equal, {"another": rf"\text{{{other}}}"})


OTHERS: tuple[Callable[[random.Random], Gold], ...] = (
    _polynomial,
    _tuple,
    _set,
    _list,
    _interval,
    _union,
    _angles,
    _choice,
    _word,
)
