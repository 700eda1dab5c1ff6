r"""Find the answer a response commits to: the content of its last `\boxed{...}` or `\fbox{...}`."""

from __future__ import annotations

import re
from dataclasses import dataclass

# Nothing that long is an answer, and a broken model can write megabytes.
MAX_BOX = 20_000
# So far back from the last box a sentence is looked through, for so many boxes.
MAX_SENTENCE = 4000
MAX_BOXES = 20

_OPEN = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped character is passed over whole


class UnclosedBoxError(ValueError):
    """The last box opens and the text ends before it closes."""


class LongBoxError(ValueError):
    """The last box goes on for longer than any answer does."""


@dataclass(frozen=True)
class Boxes:
    """What a text puts in boxes.

    Attributes:
        answer: Their content; of several that are one answer, the contents with commas between.
        parts: The single ones where several are in doubt: all but one must agree with the answer.
    """

    answer: str
    parts: list[str]


# Behind a full stop or a line's end another sentence begins; what is between two boxes of one
# sentence says whether the later takes the earlier one's place.
_SENTENCE = re.compile(r"[.!?]['\")\]$*]*\s|\n")
_CORRECTION = re.compile(
    r"\b(?:no|not|wait|but|actually|correct(?:ion|ed)?|rather|instead|fails?|wrong|so|thus|hence"
    r"|therefore|final|gives?|gets?|yields?|answer|check)\b|\\(?:implies|Rightarrow|to)\b|[⇒→]",
    re.IGNORECASE,
)
_ALTERNATIVE = re.compile(r"\bor\b")


def boxes(text: str, everywhere: bool = False) -> Boxes | None:
    r"""Returns the answer in the boxes of the last sentence or line that has any.

    Args:
        text: A response, or any LaTeX.
        everywhere: Whether all boxes are one answer, wherever they are.

    Returns:
        The answer and its parts, or None if there is no box.

    Raises:
        UnclosedBoxError: If the last box never closes.
        LongBoxError: If the last box does not close within `MAX_BOX` characters.
    """
    last = last_box(text)
    if last is None:
        return None
    opening = _last_opening(text)
    assert opening is not None
    contents, words, end = [last], [], opening.start()
    reach = max(0, end - MAX_SENTENCE)
    while len(contents) < MAX_BOXES and (before := _last_opening(text, end)) is not None:
        closing = _closing(text, before)
        between = "" if closing is None else text[closing + 1 : end]
        inside = closing is not None and before.start() < end <= closing
        if closing is None or before.start() < reach:
            break
        if inside:  # a box in a box
            end = before.start()
            continue
        if not everywhere and (_SENTENCE.search(between) or _CORRECTION.search(between)):
            break
        contents.insert(0, text[before.end() : closing].strip())
        words.append(between)
        end = before.start()
    if len(set(contents)) == 1:
        return Boxes(last, [])
    plain = all(_JOINED.fullmatch(between) for between in words)
    joined = (" or " if any(map(_ALTERNATIVE.search, words)) else "; ").join(contents)
    return Boxes(joined, [] if plain else contents)


def last_box(text: str) -> str | None:
    r"""Returns what stands in the last `\boxed{...}` or `\fbox{...}`.

    Braces inside are balanced; `\{` and `\}` are characters to print and do not count.

    Returns:
        The content without surrounding white space, or None if there is no box.

    Raises:
        UnclosedBoxError: If the last box never closes. An earlier box is not taken in its place:
            the response was about to say something else.
        LongBoxError: If the box does not close within `MAX_BOX` characters.
    """
    opening = _last_opening(text)
    if opening is None:
        return None
    closing, start = _closing(text, opening), opening.end()
    if closing is not None:
        return text[start:closing].strip()
    if len(text) > start + MAX_BOX:
        raise LongBoxError(f"the last box is longer than {MAX_BOX} characters")
    raise UnclosedBoxError("the last box is not closed")


# Between boxes that are one answer: dollars, commas, "and", a name and its equals sign.
_JOINED = re.compile(
    r"(?:[\s$,;.]|\\[()\[\],;:! ]|\\q?quad|\\(?:text|mathrm)\{\s*(?:and|or|,)?\s*\}|\band\b|\bor\b"
    r"|[A-Za-z](?:_\{?\w+\}?)?\s*=)*"
)


def _closing(text: str, opening: re.Match[str]) -> int | None:
    depth, start = 1, opening.end()
    for found in _BRACE.finditer(text, start, start + MAX_BOX):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if not depth:
            return found.start()
    return None


def _last_opening(text: str, end: int | None = None) -> re.Match[str] | None:
    places = {command: text.rfind(command, 0, end) for command in ("\\boxed", "\\fbox")}
    while True:
        command = max(places, key=lambda name: places[name])
        start = places[command]
        # `\boxed` without a brace, as in "now I write \boxed", is not a box; look further left.
        if start < 0 or (opening := _OPEN.match(text, start)):
            return None if start < 0 else opening
        places[command] = text.rfind(command, 0, start)
