r"""Cases for measuring a grader: gold answers, equivalent spellings and near misses, generated.

Every case knows by construction whether it is right. Nothing is copied from a benchmark; gold
answers of one's own can be put through the same rewriting with `cases_of`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Case:
    """One response to be graded.

    Attributes:
        family: The kind of gold answer, such as `fraction`.
        change: What was done to it, such as `off by one`.
        gold: The right answer.
        answer: What stands in the response's box.
        right: Whether the answer is right.
    """

    family: str
    change: str
    gold: str
    answer: str
    right: bool

    @property
    def response(self) -> str:
        """The response as a model would write it."""
        tried = "We try $\\boxed{0}$, which fails."
        return f"{tried} Therefore the answer is $\\boxed{{{self.answer}}}$."


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


def corpus(per_family: int = 40, seed: int = 0) -> list[Case]:
    """Generates gold answers of every family and all their cases.

    Args:
        per_family: Gold answers of each family.
        seed: The same seed gives the same cases.
    """
    rng = random.Random(seed)
    return [
        case
        for make in _FAMILIES
        for gold in (make(rng) for _ in range(per_family))
        for case in _cases(gold)
    ]


def cases_of(gold: str, family: str = "given") -> list[Case]:
    """Returns the cases of a gold answer of one's own: notation changed, and a digit or sign wrong.

    Args:
        gold: The answer.
        family: What to call its kind.
    """
    equal, unequal = {}, {}
    if re.fullmatch(r"-?[0-9]+", gold):
        made = _integer_rewritings(int(gold))
        equal, unequal = made.equal, made.unequal
    return list(_cases(Gold(family, gold, equal, unequal)))


def _cases(gold: Gold) -> Iterator[Case]:
    seen = {gold.text}
    yield Case(gold.family, "itself", gold.text, gold.text, True)
    for right, changes in (
        (True, gold.equal | _same_notation(gold.text)),
        (False, gold.unequal | _slips(gold.text)),
    ):
        for change, answer in changes.items():
            if answer not in seen:
                seen.add(answer)
                yield Case(gold.family, change, gold.text, answer, right)


def _same_notation(text: str) -> dict[str, str]:
    """Rewrites that change nothing of any answer."""
    changes = {
        "dollars": f"${text}$",
        "parentheses of mathematics": rf"\({text}\)",
        "display style": rf"\displaystyle {text}",
        "spaces around": f"  {text} ",
        "thin space": rf"\,{text}",
        "full stop": f"{text}.",
        "dfrac": text.replace(r"\frac", r"\dfrac"),
        "tfrac": text.replace(r"\frac", r"\tfrac"),
        "left and right": re.sub(r"(?<!\\left)([(\[])", r"\\left\1", text),
        "spaced commas": re.sub(r",\s*", r",\\; ", text),
        "tight commas": re.sub(r",\s+", ",", text),
    }
    changes["left and right"] = re.sub(
        r"(?<!\\right)([)\]])", r"\\right\1", changes["left and right"]
    )
    if not re.search(r"[=<>,]|\\(?:le|ge|in|text|cup)|^\(", text):
        changes["name"] = f"x = {text}"
        changes["in braces"] = f"{{{text}}}"
    return changes


def _slips(text: str) -> dict[str, str]:
    """One digit or one sign wrong."""
    changes = {}
    digits = [
        m for m in re.finditer(r"(?<![0-9_])[0-9]+", text) if not text[: m.start()].endswith("_{")
    ]
    for name, index in (("first number off by one", 0), ("last number off by one", -1)):
        if digits:
            found = digits[index]
            number = str(int(found[0]) + 1)
            changes[name] = text[: found.start()] + number + text[found.end() :]
    if digits and re.fullmatch(r"[-0-9a-z\\{}^+ ]*", text) and not re.search(r"^-?0*$|text", text):
        opposite = text[1:] if text.startswith("-") else f"-{text}"
        # -a+b is no opposite of a+b, and still another number; -(a+b) would be one too.
        changes["sign"] = opposite
    return changes


def _integer_rewritings(value: int) -> Gold:
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
    return _integer_rewritings(rng.choice((1, 1, 1, -1)) * rng.randrange(10 ** rng.randint(1, 7)))


def _padded(rng: random.Random) -> Gold:
    value = rng.randrange(2, 100)
    made = _integer_rewritings(value)
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


_FAMILIES: tuple[Callable[[random.Random], Gold], ...] = (
    _integer,
    _padded,
    _fraction,
    _decimal,
    _surd,
    _multiple_of_pi,
    _power,
    _tiny,
    _polynomial,
    _tuple,
    _set,
    _list,
    _interval,
    _union,
    _complex,
    _angle,
    _choice,
    _word,
)
