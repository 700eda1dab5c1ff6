r"""Cases for measuring a grader: gold answers, equivalent spellings and near misses, generated.

Every case knows by construction whether it is right. Nothing is copied from a benchmark; gold
answers of one's own can be put through the same rewriting with `cases_of`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.grading.corpus.numbers import NUMBERS, Gold, whole_number
from tests.grading.corpus.others import OTHERS


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


def corpus(per_family: int = 40, seed: int = 0) -> list[Case]:
    """Generates gold answers of every family and all their cases.

    Args:
        per_family: Gold answers of each family.
        seed: The same seed gives the same cases.
    """
    rng = random.Random(seed)
    return [
        case
        for make in (*NUMBERS, *OTHERS)
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
        made = whole_number(int(gold))
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
    if re.search(r"[0-9],[0-9]{3}(?![0-9])|^-?[0-9]+,[0-9]+$", changes["tight commas"]):
        del changes["tight commas"]  # thousands, or a decimal comma
    if re.search(r"[0-9](?:,|\{,\})[0-9]{3}(?![0-9])", text):
        del changes["spaced commas"]
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
