r"""Find the answer a response commits to: the content of its last `\boxed{...}` or `\fbox{...}`."""

from __future__ import annotations

import re

# Nothing that long is an answer, and a broken model can write megabytes.
MAX_BOX = 20_000

_OPEN = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped character is passed over whole


class UnclosedBoxError(ValueError):
    """The last box opens and the text ends before it closes."""


class LongBoxError(ValueError):
    """The last box goes on for longer than any answer does."""


def last_box(text: str) -> str | None:
    r"""Returns what stands in the last `\boxed{...}` or `\fbox{...}`.

    Braces inside are balanced; `\{` and `\}` are characters to print and do not count.

    Args:
        text: A response, or any LaTeX.

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
    depth, start = 1, opening.end()
    for found in _BRACE.finditer(text, start, start + MAX_BOX):
        if found[0] == "{":
            depth += 1
        elif found[0] == "}":
            depth -= 1
            if not depth:
                return text[start : found.start()].strip()
    if len(text) > start + MAX_BOX:
        raise LongBoxError(f"the last box is longer than {MAX_BOX} characters")
    raise UnclosedBoxError("the last box is not closed")


def _last_opening(text: str) -> re.Match[str] | None:
    places = {command: text.rfind(command) for command in ("\\boxed", "\\fbox")}
    while True:
        command = max(places, key=lambda name: places[name])
        start = places[command]
        # `\boxed` without a brace, as in "now I write \boxed", is not a box; look further left.
        if start < 0 or (opening := _OPEN.match(text, start)):
            return None if start < 0 else opening
        places[command] = text.rfind(command, 0, start)
