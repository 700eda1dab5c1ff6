"""Finding a tool call in what a policy wrote, and showing it what the tool printed.

One rule each, and no guessing: what does not follow the rule is text.
"""

from __future__ import annotations

import io
import json
import re
import tokenize
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

# A block may be within lists: behind their marks, or indented.
_OPENING = re.compile(r"([ \t]*(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*)(`{3,}|~{3,})[ \t]*([\w+-]*)(.*)")
_CLOSING = re.compile(r"([ \t]*)(`{3,}|~{3,})[ \t]*")
_LANGUAGES = frozenset({"python", "py", "python3"})

OUTPUT_OPEN = "```output\n"
OUTPUT_CLOSE = "```\n"

TOOL_OPEN, TOOL_CLOSE = "<tool_call>", "</tool_call>"
TOOL_NAME = "python"
# What a program or a JSON value cannot do without.
_WORDS = re.compile(r"[^{}\[\]()=]*")


@dataclass(frozen=True)
class Call:
    """A call in a policy's text.

    Attributes:
        code: The program; empty if it cannot be known, or another tool is called.
        problem: Why there is nothing to run, in words for the policy; None if there is.
        end: Index behind the call. What the policy wrote after it, it wrote without the result.
        start: Index of the call's first character.
        tool: What is called.
        arguments: By name, of another tool than Python.
    """

    code: str
    problem: str | None
    end: int
    start: int
    tool: str = TOOL_NAME
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def written(self) -> str:
        """The program, or another tool's name and arguments as JSON: what is kept of the call."""
        if self.tool == TOOL_NAME:
            return self.code
        said = {"name": self.tool, "arguments": dict(self.arguments)}
        return json.dumps(said, ensure_ascii=False)


def find_fenced_call(text: str) -> Call | None:
    """Return the first closed Python block in `text`, or None.

    A block opens with a line of three or more backticks or tildes and `python` (or `py`,
    `python3`), and closes with the first line of at least as many of the same and nothing else. So
    a block opened with four backticks may hold a line of three. Blocks in other languages are
    passed over whole, and an unclosed block is no call.

    As in CommonMark the block may be indented, or begin behind the mark of a list; the program's
    lines then lose as much of their indentation as the opening has, and the rest is the program's
    own. The closing line is indented by at most three columns more than the opening, so that a
    program may hold an indented fence. A line ends with a line feed, with or without a carriage
    return before it.

    Whether the last line closes a block is known when it is over. Of a text that may go on, give
    whole lines only.

    Args:
        text: What the policy has written in this turn.
    """
    fence, language, indent = "", "", 0
    program: list[str] = []
    start = position = 0
    for line in text.split("\n"):
        end = position + len(line)
        if not fence:
            opened = _OPENING.fullmatch(line)
            # Backticks behind backticks are code within a line of prose.
            if opened is not None and not (opened[2][0] == "`" and "`" in opened[4]):
                fence, language = opened[2], opened[3].lower()
                program, indent = [], _columns(opened[1])
                start = position
        elif (
            (closed := _CLOSING.fullmatch(line.removesuffix("\r"))) is not None
            and closed[2].startswith(fence)
            and _columns(closed[1]) <= indent + 3
        ):
            if language in _LANGUAGES:
                return Call("\n".join(program), None, end, start)
            fence = ""
        else:
            program.append(_outdented(line.removesuffix("\r"), indent))
        position = end + 1
    return None


def _columns(indentation: str) -> int:
    return len(indentation.expandtabs(4))


def _outdented(line: str, columns: int) -> str:
    """Return a line without the first columns of its indentation, as far as it has them."""
    body = line.lstrip(" \t")
    if columns == 0:
        return line
    return " " * (_columns(line[: len(line) - len(body)]) - columns) + body


def within_string(code: str) -> bool:
    """Whether a program ends within a string of several lines."""
    try:
        for _ in tokenize.generate_tokens(io.StringIO(code).readline):
            pass
    except tokenize.TokenError as error:
        return "string" in str(error)
    except SyntaxError:
        return False
    return False


def find_call(text: str) -> str | None:
    """Return the program of `find_fenced_call`, or None."""
    call = find_fenced_call(text)
    return None if call is None else call.code


def find_json_call(text: str, tools: Collection[str] = (TOOL_NAME,)) -> Call | None:
    r"""Return the first tool call in `text`, or None.

    A call is `<tool_call>`, one JSON object with `name` and `arguments`, `</tool_call>`, with white
    space between. The object is read by a JSON parser, so its strings may hold anything, the
    closing tag and `}}` included; line breaks within strings are accepted, though JSON forbids
    them. An object that cannot be read, but is followed by `</tool_call>`, is a call with a
    problem; one with an open string or without the closing tag is no call, and a tag in a sentence
    is none either: one with nothing but words behind it up to the next tag, or in quotes.

    Args:
        text: What the policy has written in this turn.
        tools: Names of the tools there are.
    """
    opening = text.find(TOOL_OPEN)
    while opening >= 0:
        body = opening + len(TOOL_OPEN)
        following = text.find(TOOL_OPEN, body)
        if not _mentioned(text, body, following):
            return _json_call(text, opening, tools)
        opening = following
    return None


def _mentioned(text: str, body: int, following: int) -> bool:
    """Whether a tag is spoken of: in quotes, or with words behind it up to the next tag.

    Args:
        text: Of the turn.
        body: Index behind the tag.
        following: Index of the next one; -1 without.
    """
    closing = text.find(TOOL_CLOSE, body)
    if text[body : body + 1] in ("`", "'", '"', "\u201d", "\u2019"):
        return True
    # Without any tag behind it nobody can tell yet, and there is no call either.
    if 0 <= following and (closing < 0 or following < closing):
        return not text[body:].lstrip().startswith("{")
    words = text[body:closing] if closing >= 0 else ""
    return bool(words.strip()) and _WORDS.fullmatch(words) is not None


def _json_call(text: str, opening: int, tools: Collection[str]) -> Call | None:
    start = opening + len(TOOL_OPEN)
    start += len(text[start:]) - len(text[start:].lstrip())
    try:
        value, end = json.JSONDecoder(strict=False).raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        # Within a string that is still open, the closing tag is part of the program.
        closing = text.find(TOOL_CLOSE, start)
        if closing < 0 or "Unterminated string" in str(error):
            return None
        unreadable = f"the call is not JSON: {error}"
        return Call("", unreadable, closing + len(TOOL_CLOSE), opening)
    rest = text[end:]
    tag = rest.lstrip()
    if not tag.startswith(TOOL_CLOSE):
        # Something else stands between the object and the tag.
        closing = text.find(TOOL_CLOSE, end)
        if closing < 0:
            return None
        unreadable = "more than one JSON object in the call"
        return Call("", unreadable, closing + len(TOOL_CLOSE), opening)
    end += len(rest) - len(tag) + len(TOOL_CLOSE)
    if not isinstance(value, dict) or "name" not in value:
        nameless = 'the call must be an object with "name" and "arguments"'
        return Call("", nameless, end, opening)
    name, arguments = value["name"], value.get("arguments")
    if not isinstance(name, str) or name not in tools:
        return Call("", no_such_tool(name, tools), end, opening)
    if name == TOOL_NAME:
        code, problem = _python_of(arguments)
        return Call(code, problem, end, opening)
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments, strict=False)
        except ValueError:
            pass
    if not isinstance(arguments, dict):
        return Call("", "the arguments must be an object", end, opening, name)
    return Call("", None, end, opening, name, arguments)


def no_such_tool(name: object, tools: Collection[str]) -> str:
    """Return what a policy is told that calls a tool there is not."""
    return f"there is no tool {name!r}; the tool is {' or '.join(map(repr, tools))}"


def _python_of(arguments: object) -> tuple[str, str | None]:
    if isinstance(arguments, str):  # some models write the arguments as a JSON string
        try:
            arguments = json.loads(arguments, strict=False)
        except ValueError:
            arguments = {"code": arguments}
    if not isinstance(arguments, dict) or not isinstance(arguments.get("code"), str):
        return "", 'the arguments must be an object with a string "code"'
    return arguments["code"], None


def shorten(output: str, limit: int) -> str:
    """Cut the middle out of a long output: a traceback says what happened in its last line."""
    if len(output) <= limit:
        return output
    half = limit // 2
    left_out = len(output) - 2 * half
    return f"{output[:half]}\n[{left_out} characters left out]\n{output[len(output) - half :]}"


def format_output(output: str, *, after: str, limit: int) -> str:
    """Return the text that puts a program's output back into the context.

    Args:
        output: What the program printed.
        after: The text it will follow; decides whether a line break is needed first.
        limit: Most characters of `output` that are shown, half of them from its end.
    """
    # A program must not be able to close its own output block, or to write a special token of the
    # chat, and so speak as the policy or as the user.
    output = shorten(output, limit).replace("```", "'''").replace("<|", "< |")
    if output and not output.endswith("\n"):
        output += "\n"
    line_break = "" if after.endswith("\n") else "\n"
    return f"{line_break}{OUTPUT_OPEN}{output}{OUTPUT_CLOSE}"


def format_response(output: str, *, limit: int) -> str:
    """Return a tool's answer to a JSON call, the content of a message.

    Args:
        output: What the program printed.
        limit: Most characters of it that are shown, half of them from its end.
    """
    output = shorten(output, limit)
    # Neither the tag nor a special token of the chat may come from a program.
    output = output.replace("</tool_response>", "< /tool_response>").replace("<|", "< |")
    return f"<tool_response>\n{output.rstrip()}\n</tool_response>"
