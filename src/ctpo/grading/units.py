"""By which factors an answer may be off because its unit is another one than was asked for."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cache

# Sizes within a kind. Of a plural the s is gone already. Counting words stand beside "one", which
# nobody writes: 5 million is 5000000.
_KINDS: tuple[dict[str, int], ...] = (
    {"cent": 1, "penny": 1, "dollar": 100},
    {"one": 1, "dozen": 12, "hundred": 100}
    | {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12},
    {"mm": 1, "cm": 10, "dm": 100, "m": 10**3, "km": 10**6}
    | {"millimeter": 1, "centimeter": 10, "meter": 10**3, "kilometer": 10**6},
    {"in": 1, "inch": 1, "ft": 12, "foot": 12, "feet": 12, "yd": 36, "yard": 36}
    | {"mi": 63360, "mile": 63360},
    {"mg": 1, "g": 10**3, "gram": 10**3, "kg": 10**6, "kilogram": 10**6, "ton": 10**9},
    {"oz": 1, "ounce": 1, "lb": 16, "pound": 16},
    {"ml": 1, "milliliter": 1, "l": 10**3, "liter": 10**3, "litre": 10**3},
    {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hr": 3600, "hour": 3600}
    | {"day": 86400, "week": 7 * 86400, "year": 365 * 86400, "month": 365 * 7200},
)
OTHER_UNIT = "equal but for a factor of {}, which may be that of another unit"

_ANGLES = ("degree", "radian", "rad")
_PLAIN = re.compile(r"([a-z]+)(?:\^?([0-9]))?")


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
