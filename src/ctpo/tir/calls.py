"""Tool calls in the policy's text: a fenced Python block, and the block of its output."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^```[ \t]*([\w+-]*)[^\n`]*$")
_LANGUAGES = frozenset({"python", "py", "python3"})

OUTPUT_OPEN = "```output\n"
OUTPUT_CLOSE = "```\n"


def find_call(text: str) -> str | None:
    """Return the program of the first closed Python block in `text`, or None.

    A block opens with a line ```` ```python ```` (or `py`, `python3`) and closes with a line
    ```` ``` ````. Blocks in other languages are passed over whole, and an unclosed block is no
    call. Indentation is the program's own and is kept.

    Args:
        text: What the policy has written in this turn.
    """
    language: str | None = None
    program: list[str] = []
    for line in text.split("\n"):
        fence = _FENCE.match(line)
        if language is None:
            if fence is not None:
                language, program = fence.group(1).lower(), []
        elif fence is not None and not fence.group(1):
            if language in _LANGUAGES:
                return "\n".join(program)
            language = None
        else:
            program.append(line)
    return None


def format_output(output: str, *, after: str, limit: int) -> str:
    """Return the text that puts a program's output back into the context.

    Args:
        output: What the program printed.
        after: The text it will follow; decides whether a line break is needed first.
        limit: Most characters of `output` that are shown. Of a longer one the beginning and the
            end are kept, since a traceback says what happened in its last line.
    """
    if len(output) > limit:
        half = limit // 2
        left_out = len(output) - 2 * half
        tail = output[len(output) - half :]
        output = f"{output[:half]}\n[{left_out} characters left out]\n{tail}"
    # A program must not be able to close its own output block and speak as the policy.
    output = output.replace("```", "'''")
    if output and not output.endswith("\n"):
        output += "\n"
    line_break = "" if after.endswith("\n") else "\n"
    return f"{line_break}{OUTPUT_OPEN}{output}{OUTPUT_CLOSE}"
