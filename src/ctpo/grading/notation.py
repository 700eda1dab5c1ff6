r"""Strip what is notation and not value: dollar signs, spacing, units, percent signs, `x =`."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PLAIN = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")

_CHARACTERS = str.maketrans(
    {
        "−": "-",  # the minus sign, not the hyphen
        "–": "-",
        "π": r"\pi ",
        "∞": r"\infty ",
        "√": r"\sqrt ",
        "×": r"\times ",
        "·": r"\cdot ",
        "°": r"^\circ",
        "％": "%",
    }
)
# `(?<!\\)`: in a matrix, `\\` ends a row and the character behind it is not escaped.
_INVISIBLE = re.compile(r"(?<!\\)\\(?:[,!;:> ]|q?quad\b|displaystyle\b|left|right)")
_DOLLARS = re.compile(r"(?<!\\)\\[$()\[\]]|\$")
_COMMA = re.compile(r"\{,\}")
_FRACTION = re.compile(r"\\[dtc]frac\b")
# Escaped it is money, bare it is the sign of mathematics.
_MONEY = re.compile(r"\\\$\s*(?=[0-9.])")
_DEGREE = re.compile(r"\s*(\^\s*(\\circ|\{\s*\\circ\s*\})|\\degree)\s*")
_DEGREES = re.compile(_DEGREE.pattern + r"(?:\s*(?:[)\]]|\\\}))*$")
# In tan 45° the degrees belong to the argument.
_ANGLE_FUNCTION = re.compile(r"sin|cos|tan|cot|sec|csc")
_PERCENT = re.compile(r"\s*(\\?%|\\text\{\s*(percent|\\?%)\s*\}|\bpercent)\s*")
_PERCENTS = re.compile(_PERCENT.pattern + "$")
_NAME = re.compile(r"([A-Za-z](?:_\{?\w+\}?)?(?:\([A-Za-z]\))?)\s*(?:=|\\in\b)\s*(?=\S)")
_RELATION = re.compile(r"[=<>]|\\(?:[lg]eq?|neq?|in|approx)\b")
_TEXT_COMMAND = r"\\(?:text|mathrm|mbox|textbf|textit|textrm|mathbf|operatorname|rm)\s*"
_WRAPPED = re.compile(_TEXT_COMMAND + r"\{([^{}]*)\}")
_UNIT = re.compile(r"(?<=[\d}\s])\s*" + _TEXT_COMMAND + r"\{([^{}]*)\}(\^\{?\d\}?)?\s*$")
# Without \text, a word of two letters is more likely a product of two variables.
_PLAIN_UNIT = re.compile(r"(?<=\d)\s+((?:[cmk]m|[km]g|ft|[A-Za-z]{3,}))(\^\{?\d\}?)?\s*$")
# "1 or more" is not "1", and what follows it is not its unit.
_NOT_UNITS = frozenset("sqrt mod and or to infinity inf".split())
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace is passed over
_CHOICE = re.compile(r"\(\s*([A-Za-z])\s*\)")


@dataclass(frozen=True)
class Notation:
    r"""An answer with its value and its trimmings apart.

    Attributes:
        value: The LaTeX of the value alone.
        name: What the value was set equal to ("x" in "x = 5"), or "".
        unit: The trailing unit in lower case and the singular, or "". Degrees and dollars have
            signs, which may stand elsewhere.
        percent: Whether a percent sign followed.
        worded: Whether the value is text, as in `\text{Monday}`, and not a formula.
    """

    value: str
    name: str = ""
    unit: str = ""
    percent: bool = False
    worded: bool = False


def take_apart(raw: str) -> Notation:
    r"""Separates a value from dollar signs, spacing, a leading name, a unit and a percent sign.

    Args:
        raw: An answer as written, such as `$x = 70^\circ$`.

    Returns:
        The parts; `70` and the rest apart in the example.
    """
    text = raw.strip()
    if _PLAIN.fullmatch(text):
        return Notation(text)
    # Long runs of white space, which a broken model does write, would cost the patterns below dear.
    text = " ".join(text.translate(_CHARACTERS).split())
    money = bool(_MONEY.search(text))
    text = _DOLLARS.sub("", _INVISIBLE.sub("", text))
    text = _FRACTION.sub(r"\\frac", _COMMA.sub(",", text)).strip().removesuffix(".").strip()
    if _in_one_pair_of_braces(text):
        text = text[1:-1].strip()

    name = ""
    if (found := _NAME.match(text)) and not _RELATION.search(text, found.end()):
        name, text = found[1], text[found.end() :]

    if whole := _WRAPPED.fullmatch(text):
        inside = whole[1].strip()
        letter = _CHOICE.fullmatch(inside)
        return Notation(letter[1] if letter else inside, name, worded=True)
    if letter := _CHOICE.fullmatch(text):
        return Notation(letter[1], name)

    # What stands behind the last of several numbers stands behind all of them.
    percent = bool(_PERCENTS.search(text))
    if percent:
        text = _PERCENT.sub(" ", text)
    unit = "dollar" if money else ""
    if _DEGREE.search(text) and not _ANGLE_FUNCTION.search(text):
        unit = "degree"
        if _DEGREES.search(text):
            text = _DEGREE.sub(" ", text)
    elif found := _UNIT.search(text) or _PLAIN_UNIT.search(text):
        word = found[1].replace("~", " ").strip()
        if word and word.lower().split()[0] not in _NOT_UNITS:
            text = text[: found.start()]
            unit = _singular(re.sub(r"[{}\s]", "", word + (found[2] or "")).lower())
    return Notation(text.strip(), name, unit, percent)


def _singular(unit: str) -> str:
    singular = re.sub(r"(?<=[a-z]{2})s(?=$|[/^])", "", unit)
    return "degree" if singular == "deg" else singular.replace("inche", "inch")


def _in_one_pair_of_braces(text: str) -> bool:
    """Whether the first brace is closed by the last character, as in `{5}` and not in `{a}+{b}`."""
    if not (text.startswith("{") and text.endswith("}")):
        return False
    depth = 0
    for found in _BRACE.finditer(text):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return found.end() == len(text)
    return False
