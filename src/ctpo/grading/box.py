r"""Find the answer a response commits to: the content of its last `\boxed{...}`."""

from __future__ import annotations

import re

_OPEN = re.compile(r"\\boxed\s*\{")


class UnclosedBoxError(ValueError):
    """The last box opens and the text ends before it closes."""


def last_box(text: str) -> str | None:
    r"""Returns what stands in the last `\boxed{...}`.

    Braces inside are balanced; `\{` and `\}` are characters to print and do not count.

    Args:
        text: A response, or any LaTeX.

    Returns:
        The content without surrounding white space, or None if there is no box.

    Raises:
        UnclosedBoxError: If the last box never closes. An earlier box is not taken in its place:
            the response was about to say something else.
    """
    start = text.rfind("\\boxed")
    # `\boxed` without a brace, as in "now I write \boxed", is not a box; look further left.
    while start >= 0 and not (opening := _OPEN.match(text, start)):
        start = text.rfind("\\boxed", 0, start)
    if start < 0:
        return None
    assert opening is not None
    depth, index = 1, opening.end()
    while index < len(text):
        character = text[index]
        if character == "\\":
            index += 1  # whatever follows is escaped
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if not depth:
                return text[opening.end() : index].strip()
        index += 1
    raise UnclosedBoxError("the last box is not closed")
