"""Numbers as gold answers, each with what means the same and what nearly does."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Gold:
    """A gold answer with rewritings that only its maker can know.

    Attributes:
        family: Its kind.
        text: LaTeX.
        equal: Other ways to write the same, by name of the change.
        unequal: Near misses, by name of the change.
    """

    family: str
    text: str
    equal: dict[str, str]
    unequal: dict[str, str]


def whole_number(value: int) -> Gold:
    """Returns an integer with its rewritings."""
    sign, size = ("-", -value) if value < 0 else ("", value)
    equal = {
        "zero padded": f"{sign}{size:04d}",
        "decimal point": f"{value}.0",
        "degrees": rf"{value}^\circ",
        "degrees in braces": rf"{value}^{{\circ}}",
        "unit": rf"{value}\text{{ cm}}",
        "as a fraction": rf"\frac{{{2 * value}}}{{2}}",
        "as a sum": f"{value - 3}+3",
    }
    if size >= 1000:
        equal["thousands separator"] = f"{value:,}"
        equal["thousands in braces"] = f"{value:,}".replace(",", "{,}")
    unequal = {
        "off by one": str(value + 1),
        "off by one below": str(value - 1),
        "ten times": f"{value * 10 or 10}",
        "almost": f"{value}.0000000000000001",
        "a range": f"{value}, {value + 1}",
    }
    if value:
        unequal["opposite"] = str(-value)
        unequal["reciprocal"] = rf"\frac{{1}}{{{value * 7}}}"
    return Gold("integer", str(value), equal, unequal)


def _integer(rng: random.Random) -> Gold:
    return whole_number(rng.choice((1, 1, 1, -1)) * rng.randrange(10 ** rng.randint(1, 7)))


def _padded(rng: random.Random) -> Gold:
    value = rng.randrange(2, 100)
    made = whole_number(value)
    return Gold(
        "zero-padded integer", f"{value:03d}", made.equal | {"plain": str(value)}, made.unequal
    )


def _fraction(rng: random.Random) -> Gold:
    value = Fraction(0)
    while value.denominator == 1:
        value = Fraction(rng.randint(-300, 300), rng.randint(2, 120))
    above, below = value.numerator, value.denominator
    sign, size = ("-", -above) if above < 0 else ("", above)
    equal = {
        "slash": f"{above}/{below}",
        "not reduced": rf"\frac{{{3 * above}}}{{{3 * below}}}",
        "sign in front": rf"{sign}\frac{{{size}}}{{{below}}}",
        "negative twice": rf"\frac{{{-above}}}{{{-below}}}",
        "as a product": rf"{above} \cdot \frac{{1}}{{{below}}}",
    }
    if 10**6 % below == 0:
        equal["decimal"] = str(float(value))
    unequal = {
        "upside down": rf"\frac{{{below}}}{{{above}}}" if abs(above) != below else "2",
        "numerator off": rf"\frac{{{above + 1}}}{{{below}}}",
        "denominator off": rf"\frac{{{above}}}{{{below + 1}}}",
        "opposite": rf"\frac{{{-above}}}{{{below}}}",
        "rounded": f"{float(value):.5f}" if 10**5 % below else f"{float(value) + 0.001:.5f}",
    }
    return Gold("fraction", rf"\frac{{{above}}}{{{below}}}", equal, unequal)


def _decimal(rng: random.Random) -> Gold:
    places = rng.randint(1, 4)
    number = rng.randint(1, 10**5)
    number += number % 10 == 0
    value = Fraction(number, 10**places)
    text = f"{number // 10**places}.{number % 10**places:0{places}d}"
    equal = {
        "more zeros": f"{text}00",
        "as a fraction": rf"\frac{{{value.numerator}}}{{{value.denominator}}}",
        "powers of ten": rf"{number} \times 10^{{-{places}}}",
    }
    unequal = {
        "last place off": f"{text}1",
        "ten times": str(float(value * 10)),
        "opposite": f"-{text}",
    }
    return Gold("decimal", text, equal, unequal)


def _surd(rng: random.Random) -> Gold:
    a, b, d = rng.randint(1, 20), rng.randint(2, 9), rng.randint(2, 12)
    c = rng.choice((2, 3, 5, 6, 7, 10, 11, 13, 15, 30, 31))
    equal = {
        "sum turned": rf"\frac{{{b}\sqrt{{{c}}}+{a}}}{{{d}}}",
        "root absorbs": rf"\frac{{{a}+\sqrt{{{b * b * c}}}}}{{{d}}}",
        "plain": f"({a}+{b}*sqrt({c}))/{d}",
        "split": rf"\frac{{{a}}}{{{d}}}+\frac{{{b}\sqrt{{{c}}}}}{{{d}}}",
        "power of a half": rf"\frac{{{a}+{b}\cdot {c}^{{1/2}}}}{{{d}}}",
    }
    unequal = {
        "conjugate": rf"\frac{{{a}-{b}\sqrt{{{c}}}}}{{{d}}}",
        "root off": rf"\frac{{{a}+{b}\sqrt{{{c + 1}}}}}{{{d}}}",
        "denominator off": rf"\frac{{{a}+{b}\sqrt{{{c}}}}}{{{d + 1}}}",
        "decimal": f"{(a + b * c**0.5) / d:.10f}",
        "factor in the root": rf"\frac{{{a}+{b}\cdot {c}}}{{{d}}}",
    }
    return Gold("surd", rf"\frac{{{a}+{b}\sqrt{{{c}}}}}{{{d}}}", equal, unequal)


def _multiple_of_pi(rng: random.Random) -> Gold:
    a, b = rng.randint(2, 60), rng.choice((7, 11, 13, 17, 3, 5))
    a += a % b == 0
    equal = {
        "plain": f"{a}*pi/{b}",
        "pi outside": rf"\frac{{{a}}}{{{b}}}\pi",
        "pi first": rf"\pi \cdot \frac{{{a}}}{{{b}}}",
        "sign of pi": rf"\frac{{{a}π}}{{{b}}}",
        "slash": rf"{a}\pi/{b}",
    }
    unequal = {
        "no pi": rf"\frac{{{a}}}{{{b}}}",
        "squared": rf"\frac{{{a}\pi^2}}{{{b}}}",
        "rounded": f"{a * 3.14159265358979 / b:.6f}",
        "22/7": rf"\frac{{{22 * a}}}{{{7 * b}}}",
        "below": rf"\frac{{{a}}}{{{b}\pi}}",
    }
    return Gold("multiple of π", rf"\frac{{{a}\pi}}{{{b}}}", equal, unequal)


def _power(rng: random.Random) -> Gold:
    base, exponent = rng.choice((2, 3, 5, 6, 7, 10)), rng.randint(20, 150)
    equal = {
        "written out": str(base**exponent),
        "plain": f"{base}**{exponent}",
        "product": rf"{base} \cdot {base}^{{{exponent - 1}}}",
    }
    unequal = {
        "exponent off": f"{base}^{{{exponent + 1}}}",
        "exponent below": f"{base}^{{{exponent - 1}}}",
        "one more": str(base**exponent + 1),
        "base off": f"{base + 1}^{{{exponent}}}",
        "turned": f"{exponent}^{{{base}}}",
    }
    return Gold("power", f"{base}^{{{exponent}}}", equal, unequal)


def _tiny(rng: random.Random) -> Gold:
    """Numbers that floats take for zero: a grader that compares floats calls them all equal."""
    if rng.random() < 0.5:
        base, exponent = rng.choice((2, 3, 5, 7)), rng.randint(60, 2000)
        text, other = (rf"\frac{{1}}{{{base}^{{{n}}}}}" for n in (exponent, exponent - 1))
        equal = {
            "negative exponent": f"{base}^{{-{exponent}}}",
            "slash": f"1/{base}^{{{exponent}}}",
        }
        unequal = {"exponent off": other, "zero": "0", "opposite": f"-{base}^{{-{exponent}}}"}
    else:
        number = rng.randint(150, 2100)
        text, other = (rf"\frac{{1}}{{{n}!}}" for n in (number, number + 2))
        equal = {
            "slash": f"1/{number}!",
            "unfolded": rf"\frac{{1}}{{{number} \cdot {number - 1}!}}",
        }
        unequal = {"factorial off": other, "zero": "0", "half": rf"\frac{{1}}{{2 \cdot {number}!}}"}
    return Gold("tiny number", text, equal, unequal)


def _complex(rng: random.Random) -> Gold:
    a, b = rng.randint(1, 20), rng.randint(2, 20)
    equal = {"turned": f"{b}i+{a}", "factor behind": f"{a}+i{b}", "dot": rf"{a}+{b} \cdot i"}
    unequal = {"conjugate": f"{a}-{b}i", "no i": f"{a}+{b}", "swapped": f"{b}+{a + (a == b)}i"}
    return Gold("complex number", f"{a}+{b}i", equal, unequal)


def _angle(rng: random.Random) -> Gold:
    value = rng.randint(1, 359)
    equal = {
        "no unit": str(value),
        "sign of degrees": f"{value}°",
        "braces": rf"{value}^{{\circ}}",
        "word": rf"{value}\text{{ degrees}}",
    }
    unequal = {
        "off by one": rf"{value + 1}^\circ",
        "complement": rf"{360 - value + (value == 180)}",
    }
    return Gold("angle", rf"{value}^\circ", equal, unequal)


def _percentage(rng: random.Random) -> Gold:
    value = rng.randint(1, 99)
    equal = {
        "no sign": str(value),
        "as a fraction": rf"\frac{{{value}}}{{100}}",
        "as a decimal": f"0.{value:02d}",
        "bare sign": f"{value}%",
        "word": rf"{value}\text{{ percent}}",
    }
    unequal = {
        "off by one": rf"{value + 1}\%",
        "a tenth": f"0.0{value:02d}" if value % 10 else f"0.00{value:02d}",
        "ten times": rf"{value}0\%",
        "the rest": rf"{100 - value + (value == 50)}\%",
    }
    return Gold("percentage", rf"{value}\%", equal, unequal)


def _length(rng: random.Random) -> Gold:
    value = rng.randint(2, 500)
    equal = {
        "no unit": str(value),
        "roman": rf"{value}\,\mathrm{{cm}}",
        "tilde": rf"{value} \mathrm{{~cm}}",
        "plain": f"{value} cm",
    }
    # Ten times as much without a unit may be millimetres, and is no case.
    unequal = {
        "off by one": rf"{value + 1}\text{{ cm}}",
        "off by one, no unit": str(value + 1),
        "thrice": str(3 * value),
        "square root": rf"\sqrt{{{value * value + 1}}}\text{{ cm}}",
    }
    return Gold("length", rf"{value}\text{{ cm}}", equal, unequal)


NUMBERS: tuple[Callable[[random.Random], Gold], ...] = (
    _integer,
    _padded,
    _fraction,
    _decimal,
    _surd,
    _multiple_of_pi,
    _power,
    _tiny,
    _complex,
    _angle,
    _percentage,
    _length,
)
