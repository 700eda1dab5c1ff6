"""Numbers with units that take more than the grammar: in bare letters, and in two parts."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from ctpo.grading.reading.units import canonical_unit, size

_POWER = r"(?:\^(?:\{-?\d\}|-?\d))?"
# Of which nobody takes the letters for a product, and single letters, which may be one.
_CERTAIN = (
    "cms?|kms?|kgs?|mm|mol|Pa|kPa|Hz|kHz|MHz|GHz|eV|keV|MeV|GeV|kJ|MJ|kW|MW|kN|kV|kB|KB|MB|GB|TB"
    "|rev|sec|hrs|yd|lbs|oz|rpm|mph|kcal|kmh|nd|rd|st|th|k\\\\Omega"
    "|\\\\mu ?(?:\\\\(?:text|mathrm)\\{[msgLAVFC]\\}|[msgLAVFC])"
)
_LETTER = "ms|min|hr|ft|mi|in|lb|mg|mL|mA|mV|nm|dm|[mgsLlhNJWVAKT]|\\\\Omega"
_ATOM = rf"(?:{_CERTAIN}|{_LETTER}){_POWER}"
# Behind a number, a bracket or pi, and set apart from it.
_BEHIND = re.compile(rf"(?:(?<=[\d}})])|(?<=\\pi)) ({_ATOM}(?:(?: |/|\\cdot )(?=\S){_ATOM})*)$")
_HAS_CERTAIN = re.compile(rf"(?<![A-Za-z\\])(?:{_CERTAIN})(?![A-Za-z])")


@dataclass(frozen=True)
class LetterUnit:
    """A text read as a value with a unit in bare letters behind it.

    Attributes:
        before: The value.
        name: The unit.
        certain: Whether its letters can hardly be a product.
    """

    before: str
    name: str
    certain: bool


def letter_unit(text: str) -> LetterUnit | None:
    r"""Reads `5 m`, `10\pi cm^2` and `12 kg m/s^2` as values with units."""
    found = _BEHIND.search(text) if " " in text and len(text) < 500 else None
    if found is None:
        return None
    unit = re.sub(r"\\(?:text|mathrm)|\\cdot", " ", found[1]).replace("\\mu", "u")
    unit = re.sub(r"\s+", " ", re.sub(r"(?<=u) ?[{ ]*([A-Z]?[a-z]?)\}?", r"\1", unit))
    unit = unit.replace("\\Omega", "ohm")
    return LetterUnit(text[: found.start(1)], unit, bool(_HAS_CERTAIN.search(found[1])))


_FONT = re.compile(r"\\(?:text\w*|mathrm|mbox)\s*\{([^{}]*)\}")
_AMOUNT = r"(\d+(?:\.\d+)?)"
_TWO = re.compile(rf"{_AMOUNT} ?([A-Za-z]+)\.?,?(?: and)? {_AMOUNT} ?([A-Za-z]+)\.?")
_MONEY = re.compile(rf"{_AMOUNT} and {_AMOUNT} cents?")
_ANGLE = re.compile(rf"{_AMOUNT} ?\\degree ?{_AMOUNT} ?'(?: ?{_AMOUNT} ?'')?")


def compound(text: str, currency: str) -> tuple[Fraction, str] | None:
    r"""Reads `2 hours 30 minutes` as 2.5 hours, and `45\degree 30'` as 45.5 degrees."""
    if not text[:1].isdigit() or len(text) > 99 or not ("\\" in text or " " in text):
        return None
    text = " ".join(_FONT.sub(r" \1 ", text).split())
    if found := _ANGLE.fullmatch(text.replace("^{'}", "'").replace("^{''}", "''")):
        degrees, minutes, seconds = (Fraction(part or 0) for part in found.groups())
        whole = degrees + minutes / 60 + seconds / 3600
        return (whole, "degree") if max(minutes, seconds) < 60 else None
    if currency == "dollar" and (found := _MONEY.fullmatch(text)):
        dollars, cents = map(Fraction, found.groups())
        return (dollars + cents / 100, "dollar") if cents < 100 else None
    found = _TWO.fullmatch(text)
    if currency or not found:
        return None
    unit = canonical_unit(found[2])
    ratio = size(unit, canonical_unit(found[4]))
    first, second = Fraction(found[1]), Fraction(found[3])
    if ratio is None or ratio <= 1 or second >= ratio or first.denominator > 1:
        return None
    return first + second / ratio, unit
