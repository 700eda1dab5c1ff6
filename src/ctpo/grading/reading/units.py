"""By which factors an answer may be off because its unit is another one than was asked for."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cache

# Sizes within a kind. Of a plural the s is gone already. Counting words stand beside "one", which
# nobody writes: 5 million is 5000000.
_KINDS: tuple[dict[str, int], ...] = (
    {"cent": 1, "dollar": 100},
    {"one": 1, "ten": 10, "dozen": 12, "score": 20, "hundred": 100, "gross": 144}
    | {"lakh": 10**5, "crore": 10**7, "quadrillion": 10**15}
    | {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12},
    {"mm": 1, "cm": 10, "dm": 100, "m": 10**3, "km": 10**6},
    {"in": 1, "ft": 12, "yd": 36, "mi": 63360},
    {"mg": 1, "g": 10**3, "kg": 10**6, "ton": 10**9},
    {"oz": 1, "lb": 16, "pound": 16},
    {"ml": 1, "l": 10**3},
    {"s": 1, "min": 60, "h": 3600, "day": 86400, "week": 7 * 86400, "year": 365 * 86400}
    | {"month": 365 * 7200},
)
COUNTING = frozenset(_KINDS[1])
# A degree may be one of any of these.
SCALES = frozenset(("degc", "degf", "kelvin"))
OTHER_UNIT = "equal but for a factor of {}, which may be that of another unit"

_ANGLES = ("degree", "rad")
_PLAIN = re.compile(r"([a-z]+)(?:\^?([0-9]))?")


_NAMES = {
    "mm": "millimeter", "cm": "centimeter", "dm": "decimeter", "m": "meter", "km": "kilometer",
    "in": "inch", "ft": "foot feet", "yd": "yard", "mi": "mile", "mg": "milligram", "g": "gram",
    "kg": "kilogram", "oz": "ounce", "lb": "pound-mass", "ml": "milliliter", "l": "liter",
    "s": "sec second", "min": "minute", "h": "hr hour", "dollar": "usd buck", "euro": "eur",
    "cent": "penny pennie ¢", "degree": "deg", "mi/h": "mph", "km/h": "kmh kph kmph",
    "unit": "units", "rad": "radian", "degc": "celsiu centigrade", "degf": "fahrenheit",
     "person": "people",
}  # fmt: skip
_SHORT = {name: short for short, names in _NAMES.items() for name in names.split()}
_PARTS = re.compile(r"[A-Za-z¢µ]+")


@cache
def canonical_unit(text: str) -> str:
    r"""Writes a unit in one spelling: "square centimeters", "sq cm" and `cm^2` alike.

    Returns:
        It in lower case and the singular, such as `cm^2` or `km/h`; of "units" nothing is left.
    """
    # MW and mW are two units, and nobody is so careful with words.
    unit = re.sub(
        r"\b(?![kM]?Hz|[a-z]?[A-Z]\b|[kM][A-Z]\b)\w+", lambda found: found[0].lower(), text
    )
    unit = unit.replace("metre", "meter").replace("litre", "liter")
    unit = re.sub(r"[{}.\\~]", " ", unit.replace("µ", "u"))
    unit = re.sub(r"\bper\b", "/", re.sub(r"^\s*of\b", " ", unit))
    unit = " ".join(unit.split())
    for word, power in (("square", 2), ("sq", 2), ("cubic", 3), ("cu", 3)):
        unit = re.sub(rf"\b{word} ([a-z]+)", rf"\1^{power}", unit)
    unit = _PARTS.sub(lambda found: _short(found[0]), unit)
    unit = re.sub(r"^degree (?=deg)", "", unit)
    unit = re.sub(r"\s*([/^*-])\s*", r"\1", " ".join(unit.split()))
    return re.sub(r"^([a-z]+) ([a-z]+)\^-1$", r"\1/\2", unit)


_NO_UNITS = frozenset(
    "sqrt mod and or to more less at least most about approximately if for when where is are not "
    "no only with as than other else unless except squared cubed factorial half halves third "
    "thirds quarter quarters fourth fourths fifth fifths sixth sixths eighth eighths tenth tenths "
    "times plus minus over divided "
    "negative positive pairs pair repeating recurring below under short fewer rounded exclusive "
    "excluding midnight morning afternoon evening night".split()
)
# Sevenths and the like, and another number among the words.
_NUMBER_WORDS = re.compile(
    r"(?:seven|nin|leven|twelf|teen|tie|hundred|thousand|illion)ths?\b|[,;]|\s\d"
)


def changes_value(text: str) -> bool:
    """Whether words behind a number may say another number, as in "1 or more" or "3 quarters"."""
    words = re.findall("[a-z]+", text.lower())
    other = not _NO_UNITS.isdisjoint(words) or _NUMBER_WORDS.search(text.lower())
    return not words or len(words) > 4 or bool(other)


def _short(name: str) -> str:
    one = name
    if len(name) > 2 and name.endswith("s") and not name.endswith("ss"):
        one = name[:-1].replace("inche", "inch")
    return _SHORT.get(one) or _SHORT.get(one.lower(), "l" if one == "L" else one)


@cache
def conversions(box: str, gold: str) -> tuple[str, ...]:
    """Returns the factors by which an answer may differ from the gold and mean the same.

    Where both have a unit, or neither has, there is none. One that is not known here, such as
    `apple`, has no other to be mistaken for.

    Args:
        box: The answer's unit as `Notation.unit` has it: `degree`, `cm^2`, `km/h`.
        gold: The gold answer's.

    Returns:
        What the gold is to be multiplied by, as Python writes fractions, or with pi as in `180/pi`.
        Never 1.
    """
    if bool(box) == bool(gold):
        return ()
    if (box or gold) in _ANGLES:
        return ("180/pi", "pi/180")
    above, slash, below = (box or gold).partition("/")
    ratios = _ratios(above)
    if slash:
        ratios = {one / other for one in ratios for other in _ratios(below)}
    ratios -= {Fraction(1)}
    return tuple(str(ratio if box else 1 / ratio) for ratio in sorted(ratios))


def size(unit: str, other: str) -> Fraction | None:
    """Returns how many of another unit of its kind make up a unit, in which things are measured."""
    for kind in _KINDS:
        if unit in kind and other in kind and kind is not _KINDS[1]:
            return Fraction(kind[unit], kind[other])
    return None


def _ratios(unit: str) -> set[Fraction]:
    """By what a number with this unit is multiplied when it is given in another of the kind."""
    found = _PLAIN.fullmatch(unit)
    if not found:
        return {Fraction(1)}
    name, power = found[1], int(found[2] or 1)
    for kind in _KINDS:
        if name in kind:
            return {Fraction(size, kind[name]) ** power for size in kind.values()}
    return {Fraction(1)}
