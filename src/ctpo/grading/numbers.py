r"""Read integers, decimals and fractions exactly, without sympy."""

from __future__ import annotations

import re
from fractions import Fraction

# Python refuses to read longer integers (sys.int_info.default_max_str_digits is 4300), and nothing
# that long is an answer. The exponent of a power of ten is bounded for the same reason.
MAX_DIGITS = 4000
MAX_EXPONENT = 1000

_UNSIGNED = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?: [0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_UNSIGNED}(?:\.[0-9]*)?|\.[0-9]+)"
_SIGNED = rf"[+-]?\s*{_DECIMAL}"

_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(rf"({_SIGNED})")
_SLASH = re.compile(rf"([+-]?)\s*\{{?\s*({_SIGNED})\s*\}}?\s*/\s*\{{?\s*({_SIGNED})\s*\}}?")
_BRACED = rf"\{{\s*({_SIGNED})\s*\}}"
_FRAC = re.compile(rf"([+-]?)\s*([0-9]*)\s*\\frac\s*(?:{_BRACED}\s*{_BRACED}|\s*([0-9])([0-9]))")
_MIXED = re.compile(r"([+-]?)\s*([0-9]+)\s+([0-9]+)\s*/\s*([0-9]+)")
_SCIENTIFIC = re.compile(
    rf"({_SIGNED})\s*(?:[eE]|(?:\\times|\\cdot|\*)\s*10\s*(?:\^|\*\*))\s*\{{?\s*([+-]?[0-9]+)\s*\}}?"
)
_REPEATING = re.compile(r"([+-]?)\s*([0-9]*)\.([0-9]*)\\overline\s*\{\s*([0-9]+)\s*\}")


def read_number(text: str) -> Fraction | int | None:
    r"""Reads a rational number exactly.

    Understood are integers with leading zeros, signs and thousands separators (`1,000`, `1 000`),
    decimals, `a/b`, `\frac{a}{b}`, `\frac12`, mixed numbers (`3\frac{1}{2}`, `3 1/2`) and powers of
    ten (`1.5 \times 10^{3}`, `2e5`), repeating decimals (`0.1\overline{6}`).

    Args:
        text: LaTeX without dollar signs, names and units.

    Returns:
        The number, or None if the text is anything else, too long, or divides by zero.
    """
    if len(text) > MAX_DIGITS:
        return None
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        return _decimal(text)
    if found := _MIXED.fullmatch(text):
        sign, whole, above, below = found.groups()
        return _signed(sign, _plus(int(whole), _divide(int(above), int(below))))
    if found := _SLASH.fullmatch(text):
        return _signed(found[1], _divide(_decimal(found[2]), _decimal(found[3])))
    if found := _FRAC.fullmatch(text):
        sign, whole, above, below, digit_above, digit_below = found.groups()
        ratio = _divide(_decimal(above or digit_above), _decimal(below or digit_below))
        # 3\frac{-1}{2} could be a product as well as a mixed number.
        if whole and (ratio is None or ratio < 0):
            return None
        return _signed(sign, _plus(int(whole or 0), ratio))
    if found := _SCIENTIFIC.fullmatch(text):
        exponent = int(found[2])
        return (
            _decimal(found[1]) * Fraction(10) ** exponent if abs(exponent) <= MAX_EXPONENT else None
        )
    if found := _REPEATING.fullmatch(text):
        sign, whole, before, again = found.groups()
        return _signed(sign, _repeating(whole, before, again))
    return None


def _repeating(whole: str, before: str, again: str) -> Fraction:
    shift = 10 ** len(before)
    period = Fraction(int(again), 10 ** len(again) - 1)
    return (int(whole + before or 0) + period) / shift


def _decimal(text: str) -> Fraction:
    return Fraction(re.sub(r"[, ]", "", text))


def _divide(above: Fraction | int, below: Fraction | int) -> Fraction | None:
    return Fraction(above) / below if below else None


def _plus(whole: int, ratio: Fraction | None) -> Fraction | None:
    return None if ratio is None else whole + ratio


def _signed(sign: str, value: Fraction | None) -> Fraction | None:
    return -value if value is not None and sign == "-" else value
