"""The built-in task family: seven questions that are hard to guess and easy to compute.

Each template states its question in a dozen plain words, so a tiny model with a tiny vocabulary
can read it, and has an integer answer that takes one line of Python and no insight. Everything
needed to write that line is in the operands.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

Operands = tuple[int, ...]


@dataclass(frozen=True)
class Template:
    """One kind of question.

    Attributes:
        name: Identifier, used as the problem's source.
        text: Operands to the question put to the model.
        answer: Operands to the one right integer.
        draw: A random generator and a number of digits, 2 or 3, to operands of that size.
    """

    name: str
    text: Callable[[Operands], str]
    answer: Callable[[Operands], int]
    draw: Callable[[random.Random, int], Operands]


def _number(rng: random.Random, digits: int) -> int:
    """A uniform integer with exactly `digits` decimal digits."""
    return rng.randrange(10 ** (digits - 1), 10**digits)


# Power sums: operands (a, b, p), the sum of k^p for k = a..b. Starting from 1 each time would leave
# some two hundred questions with two digits, too few to train on.


def _power_sum(a: int, b: int, p: int) -> int:
    return sum(k**p for k in range(a, b + 1))


def _power_sum_draw(rng: random.Random, digits: int) -> Operands:
    while True:
        a, b, p = _number(rng, digits), _number(rng, digits), rng.randint(2, 4)
        # 99^4 sums to ten digits, too long for a small model to copy out.
        if a < b and _power_sum(a, b, p) < 10**8:
            return a, b, p


# Modular powers: operands (a, b, m), the remainder of a^b divided by m.


def _modular_power_draw(rng: random.Random, digits: int) -> Operands:
    # A guesser says 0, 1 or a number from the question; seven in a hundred would be right.
    while True:
        a, b, m = (_number(rng, digits) for _ in range(3))
        if pow(a, b, m) not in (0, 1, a, b):
            return a, b, m


# Greatest common divisor and least common multiple: operands (a, b).


def _gcd_draw(rng: random.Random, digits: int) -> Operands:
    # Random pairs have gcd 1 in 61 % of cases and 2 in 15 %. Both are multiples of one divisor,
    # drawn from 3 to a third of the range, so that no value is a good guess; where one operand
    # divides the other, the answer could be copied from the question.
    low, high = 10 ** (digits - 1), 10**digits
    while True:
        divisor = rng.randint(3, high // 3)
        first, last = -(-low // divisor), (high - 1) // divisor
        a, b = divisor * rng.randint(first, last), divisor * rng.randint(first, last)
        if a % b and b % a:
            return a, b


def _lcm_draw(rng: random.Random, digits: int) -> Operands:
    # Where one operand divides the other the answer can be copied from the question.
    while True:
        a, b = _number(rng, digits), _number(rng, digits)
        if a % b and b % a:
            return a, b


# Counting: operands (n, a, b), how many of 1..n are divisible by a or by b.


def _count_draw(rng: random.Random, digits: int) -> Operands:
    # n has one digit more than the rest, else the answer would be a handful at most. One divisor
    # dividing the other would make the question a plain division.
    while True:
        n = _number(rng, digits + 1)
        a, b = rng.randrange(3, 10 ** (digits - 1) * 3), rng.randrange(3, 10 ** (digits - 1) * 3)
        if a % b and b % a:
            return n, a, b


# Products: operands (a, b, c), a * (b + c); a negative c is written as a difference.


def _product_draw(rng: random.Random, digits: int) -> Operands:
    # A difference of 0 or 1 would give 0 or a.
    while True:
        a, b, c = (_number(rng, digits) for _ in range(3))
        c *= rng.choice((1, -1))
        if b + c not in (0, 1):
            return a, b, c


# Digit sums: operands (a, b), the sum of the decimal digits of a^b.


def _digit_sum_draw(rng: random.Random, digits: int) -> Operands:
    # A power of a multiple of ten has a short digit sum and is a power of a smaller number.
    while True:
        a, b = _number(rng, digits), _number(rng, 2)
        if a % 10:
            return a, b


def _template(
    name: str,
    text: Callable[..., str],
    answer: Callable[..., int],
    draw: Callable[[random.Random, int], Operands],
) -> Template:
    """Return a template of functions that take its operands one by one."""
    return Template(
        name, lambda operands: text(*operands), lambda operands: answer(*operands), draw
    )


TEMPLATES: dict[str, Template] = {
    template.name: template
    for template in (
        _template(
            "power-sum",
            lambda a, b, p: f"Find the sum of k^{p} for k from {a} to {b}.",
            _power_sum,
            _power_sum_draw,
        ),
        _template(
            "modular-power",
            lambda a, b, m: f"Find {a}^{b} mod {m}.",
            lambda a, b, m: pow(a, b, m),
            _modular_power_draw,
        ),
        _template("gcd", lambda a, b: f"Find the gcd of {a} and {b}.", math.gcd, _gcd_draw),
        _template("lcm", lambda a, b: f"Find the lcm of {a} and {b}.", math.lcm, _lcm_draw),
        _template(
            "count-divisible",
            lambda n, a, b: f"Count the numbers from 1 to {n} divisible by {a} or {b}.",
            lambda n, a, b: n // a + n // b - n // math.lcm(a, b),
            _count_draw,
        ),
        _template(
            "product",
            lambda a, b, c: f"Find {a} * ({b} {'-' if c < 0 else '+'} {abs(c)}).",
            lambda a, b, c: a * (b + c),
            _product_draw,
        ),
        _template(
            "digit-sum",
            lambda a, b: f"Find the sum of the digits of {a}^{b}.",
            lambda a, b: sum(map(int, str(a**b))),
            _digit_sum_draw,
        ),
    )
}
