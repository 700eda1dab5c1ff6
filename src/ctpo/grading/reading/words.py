"""Answers that are words: choices with their letters, dates, and what has no number."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ctpo.grading.reading.tokens import is_word
from ctpo.grading.reading.tree import Node, Undecided, number

_FONT = re.compile(r"\\(?:text\w*|math(?:rm|bf|sf|it)|mbox|bm|boldsymbol)\s*\{([^{}]*)\}\s*(.*)")
_BRACKETED = re.compile(r"\(\s*([A-Ja-j])\s*\)\s*[.:]?(\s*)(.*)")
_MARKED = re.compile(r"([A-J])(?:\s*\)\s*|\.\s+|:\s+)(.+)|([A-J])[).:]?")
_NAMED = re.compile(r"(?:option|choice|answer)\s*:?\s*\(?([A-J])\)?", re.IGNORECASE)

_SAME = {
    "empty": "no solution|no solutions|none|no real solution|no real solutions|empty set|null set"
    "|no real roots|no roots|there is no solution|there are no solutions|no integer solutions",
    "undefined": "undefined|does not exist|dne|not defined",
    "all real numbers": "all real numbers|all reals|real numbers|all real x|any real number",
    "infinity": "infinity|positive infinity|plus infinity",
    "-infinity": "negative infinity|minus infinity",
}
_CANONICAL = {phrase: name for name, phrases in _SAME.items() for phrase in phrases.split("|")}
_NODES = {
    "empty": Node("set"),
    "all real numbers": Node("sym", (), "reals"),
    "infinity": Node("sym", (), "oo"),
    "-infinity": Node("neg", (Node("sym", (), "oo"),)),
}
_COUNTS = {
    word: number(i)
    for i, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen".split()
    )
} | {"hundred": number(100), "one hundred": number(100)}
for _i, _ten in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2):
    _COUNTS |= {_ten: number(10 * _i)} | {
        f"{_ten}{dash}{word}": number(10 * _i + int(_COUNTS[word].value))
        for word in "one two three four five six seven eight nine".split()
        for dash in "- "
    }
_MONTHS = (
    "january february march april may june july august september october november december".split()
)
_MONTH = "|".join(f"{month}|{month[:3]}\\.?" for month in _MONTHS)
_DATES = [
    re.compile(rf"(?P<month>{_MONTH}) (?P<day>\d\d?)(?:st|nd|rd|th)?(?:,? (?P<year>\d{{4}}))?"),
    re.compile(
        rf"(?P<day>\d\d?)(?:st|nd|rd|th)?(?: of)? (?P<month>{_MONTH})(?:,? (?P<year>\d{{4}}))?"
    ),
]


@dataclass(frozen=True)
class Choice:
    """A choice's letter, and the text of the choice where it is given, or ""."""

    letter: str
    rest: str


def choice(text: str) -> Choice | None:
    r"""Reads `B`, `(B)`, `(B) 13`, `\textbf{(B)}\ 13`, `C. 3` or `D) none of them`."""
    if found := _FONT.fullmatch(text):
        text = f"{found[1].strip()} {found[2]}".strip().replace(" :", ":")
    if found := _NAMED.fullmatch(text):
        return Choice(found[1].upper(), "")
    if found := _BRACKETED.fullmatch(text):
        letter, space, rest = found.groups()
        # (B)(C), (A)^2 and (a)x are products.
        product = re.match(r"[-+*/^_=<>|!',;:(]|(?:\\text\w*\s*\{\s*)?(?:and|or)\b", rest) and not (
            space and rest[:1] == "-"
        )
        if not product and (letter.isupper() or not rest):
            return Choice(letter.upper(), rest)
    if found := _MARKED.fullmatch(text):
        rest = (found[2] or "").strip()
        if re.match(r"[+*/^_=<>|!',;:]|[A-Z]\b", rest):
            return None
        return Choice(found[1] or found[3], rest)
    return None


def date(text: str) -> Node | None:
    """Reads a date as text of one form, or returns None if it is none."""
    plain = re.sub(r"\\(?:text\w*|mathrm)\s*\{([^{}]*)\}", r"\1", text)
    plain = re.sub(r"(\d)\^\{?\s*(st|nd|rd|th)\s*\}?", r"\1\2", plain)
    plain = " ".join(plain.split()).lower()
    if found := re.fullmatch(r"(\d\d?)(?::(\d\d))? ?([ap])\.? ?m\.?", plain):
        hour, minute = int(found[1]), int(found[2] or 0)
        if 1 <= hour <= 12 and minute < 60:
            return Node("text", (), f"time {hour % 12 + 12 * (found[3] == 'p')}:{minute:02}")
    if found := re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)", plain):
        return Node("text", (), f"date {int(found[2])}-{int(found[3])} {found[1]}")
    for form in _DATES:
        if found := form.fullmatch(plain):
            month = [m[:3] for m in _MONTHS].index(found["month"][:3]) + 1
            year = f" {found['year']}" if found["year"] else ""
            return Node("text", (), f"date {month}-{int(found['day'])}{year}")
    return None


def meaning(node: Node) -> Node:
    """Replaces words that say what a sign says, such as "no solution", by that sign."""
    if node.op != "text":
        return node
    text = _plain(node.value)
    name = _CANONICAL.get(text, text)
    return (
        _NODES.get(name) or _COUNTS.get(name) or Node("text", (Node("raw", (), node.value),), name)
    )


def _plain(text: str) -> str:
    text = re.sub(r"[\s~]+", " ", text.replace("\\", " ")).strip(" .,;:!'\"").casefold()
    return re.sub(r"^(?:the|an?) (?=\w)", "", text)


def same_words(one: Node, other: Node) -> bool:
    """Whether two texts say the same; raises `Undecided` where they only may."""
    left, right = one.value, other.value
    if left == right:
        return True
    if left.startswith("date ") and right.startswith("date "):
        if left.split()[1] == right.split()[1] and left.count(" ") != right.count(" "):
            raise Undecided("the same date, in one with its year")
        return False
    if left.startswith("time ") and right.startswith("time "):
        return False
    if left.isalpha() and right.isalpha() and sorted(left) != sorted(right):
        return False
    raise Undecided(f"{left!r} is not comparable with {right!r} as words")


def same_time(time: Node, other: Node) -> bool:
    """Whether a time with its half of the day is what 3:30, 15:30 or 3 says of the clock."""
    hour, minute = map(int, time.value.removeprefix("time ").split(":"))
    parts = other.args if other.op == "ratio" else (other,)
    if not all(part.op == "num" for part in parts) or len(parts) > 2:
        raise Undecided(f"a time of the day against {other}")
    told = [part.value for part in parts] + [0] * (2 - len(parts))
    return bool(told[1] == minute and told[0] in (hour, (hour - 1) % 12 + 1))


def spells(text: Node, other: Node) -> bool:
    r"""Whether a text is what letters spell that were read as a product: `\text{AB}` and AB."""
    letters = other.args if other.op == "mul" else (other,)
    if not all(letter.op == "sym" for letter in letters):
        raise Undecided(f"words against a formula: {text.value!r}")
    spelled = "".join(letter.value for letter in letters)
    raw = text.args[0].value if text.args else text.value
    if spelled == raw or (spelled.casefold() == text.value and is_word(spelled)):
        return True
    raise Undecided(f"words against letters: {text.value!r} and {spelled!r}")
