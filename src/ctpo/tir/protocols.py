"""How a policy is told to call the tool, how its calls are found, how it is answered.

A protocol is named and versioned: figures taken under different ones are not comparable. A change
to what a model reads, or to what counts as a call, is a new version.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from ctpo.references import find
from ctpo.tir.calls import (
    TOOL_NAME,
    Call,
    find_fenced_call,
    find_json_call,
    format_output,
    format_response,
    no_such_tool,
)
from ctpo.tir.tools import Tool


@dataclass(frozen=True)
class ToolProtocol:
    """One way to speak of the tool.

    Attributes:
        name: `fence`, `hermes`, `plain`, or yours.
        version: Grows with every change of behaviour.
        instructions: The system message.
        trigger: Characters of which a token that completes a call has at least one.
        inline: Whether the tool's output is put into the policy's own turn; else it is a message,
            and the policy begins a new turn.
        find: From a turn's text and the names of the tools to the first call, or None.
        show: From an output, the text it follows and the most characters of it that are shown, to
            what the policy reads; what a program printed must not end the tool's turn.
        describe: From tools to the text that tells the policy of them; None if only Python can be
            called.
        tools: The tools there are beside Python.
    """

    name: str
    version: int
    instructions: str
    trigger: str
    inline: bool
    find: Callable[[str, Collection[str]], Call | None]
    show: Callable[[str, str, int], str]
    describe: Callable[[Sequence[Tool]], str] | None = None
    tools: tuple[Tool, ...] = ()

    @property
    def label(self) -> str:
        """Name and version, such as `fence-3`, and the tools beside Python."""
        return "+".join([f"{self.name}-{self.version}", *(tool.name for tool in self.tools)])

    def with_tools(self, tools: Sequence[Tool]) -> ToolProtocol:
        """Return the same protocol with tools beside Python.

        Raises:
            ValueError: It can call Python only, or two tools have one name.
        """
        if not tools:
            return self
        if self.describe is None:
            raise ValueError(
                f"tools are given, but the protocol {self.name} calls Python at most; take hermes"
            )
        names = [TOOL_NAME, *(tool.name for tool in tools)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two tools have the name {name!r}; each needs its own")
        told = self.instructions + self.describe(tools)
        return replace(self, tools=tuple(tools), instructions=told)

    def find_call(self, text: str) -> Call | None:
        """Return the first call in a turn's text, or None."""
        names = (TOOL_NAME, *(tool.name for tool in self.tools))
        call = self.find(text, names)
        if call is not None and call.problem is None and call.tool not in names:
            return replace(call, problem=no_such_tool(call.tool, names))
        return call

    def answer(self, output: str, *, after: str, limit: int) -> str:
        """Return what the policy is shown of an output.

        Args:
            output: What the program printed, or why it was not run.
            after: The text it follows, if it is put into the policy's turn.
            limit: Most characters of `output` that are shown.
        """
        return self.show(output, after, limit)


def _inline(output: str, after: str, limit: int) -> str:
    return format_output(output, after=after, limit=limit)


def _describe(tools: Sequence[Tool]) -> str:
    schemas = "\n".join(json.dumps(tool.schema, ensure_ascii=False) for tool in tools)
    return (
        "\nThere are more tools, which are called in the same way, each by its name and with its "
        f"arguments:\n<tools>\n{schemas}\n</tools>"
    )


FENCE = ToolProtocol(
    name="fence",
    version=3,
    instructions=(
        "Solve the problem. You may run Python: write one program in a block that opens with "
        "```python and closes with ```, then stop. You will see what it prints, so print what you "
        "need; nothing is remembered between programs. Reason between programs as you like, and "
        "put your final answer in \\boxed{}."
    ),
    trigger="`~",
    inline=True,
    find=lambda text, _: find_fenced_call(text),
    show=_inline,
)

HERMES = ToolProtocol(
    name="hermes",
    version=2,
    instructions=(
        "Solve the problem. You may run Python with the tool `python`, which takes a string `code` "
        "and returns what the program prints; nothing is remembered between programs. To call it, "
        "write one JSON object between tags and stop:\n"
        '<tool_call>\n{"name": "python", "arguments": {"code": "print(6*7)"}}\n</tool_call>\n'
        "Put your final answer in \\boxed{}."
    ),
    trigger=">",
    inline=False,
    find=find_json_call,
    show=lambda output, _, limit: format_response(output, limit=limit),
    describe=_describe,
)

PLAIN = ToolProtocol(
    name="plain",
    version=1,
    instructions="Solve the problem step by step and put your final answer in \\boxed{}.",
    # No call is ever found; a character no tokenizer holds keeps the rule from being asked.
    trigger="\0",
    inline=True,
    find=lambda text, _: None,
    show=_inline,
)

PROTOCOLS: dict[str, ToolProtocol] = {p.name: p for p in (FENCE, HERMES, PLAIN)}


def protocol(name: str, field: str = "protocol") -> ToolProtocol:
    """Return the protocol of that name.

    Args:
        name: A key of `PROTOCOLS`, or the `module:name` of a `ToolProtocol` of yours.
        field: What it is called in messages.

    Raises:
        ValueError: There is none.
    """
    if name in PROTOCOLS:
        return PROTOCOLS[name]
    found = find(name, field, tuple(PROTOCOLS))
    if not isinstance(found, ToolProtocol):
        raise ValueError(
            f"{field} is {name!r}, a {type(found).__name__}; it must be a ctpo.tir.ToolProtocol"
        )
    return found
