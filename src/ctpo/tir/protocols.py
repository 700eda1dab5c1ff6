"""How a policy is told to call the tool, how its calls are found, how it is answered.

A protocol is named and versioned: figures taken under different ones are not comparable. A change
to what a model reads, or to what counts as a call, is a new version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ctpo.tir.calls import (
    Call,
    find_fenced_call,
    find_json_call,
    format_output,
    format_response,
)

Name = Literal["fence", "hermes", "plain"]


@dataclass(frozen=True)
class ToolProtocol:
    """One way to speak of the tool.

    Attributes:
        name: `fence`, `hermes` or `plain`.
        version: Grows with every change of behaviour.
        instructions: The system message.
        trigger: Characters of which a token that completes a call has at least one.
        inline: Whether the tool's output is put into the policy's own turn; else it is a message,
            and the policy begins a new turn.
    """

    name: Name
    version: int
    instructions: str
    trigger: str
    inline: bool

    @property
    def label(self) -> str:
        """Name and version, such as `fence-3`."""
        return f"{self.name}-{self.version}"

    def find_call(self, text: str) -> Call | None:
        """Return the first call in a turn's text, or None."""
        if self.name == "fence":
            return find_fenced_call(text)
        return find_json_call(text) if self.name == "hermes" else None

    def answer(self, output: str, *, after: str, limit: int) -> str:
        """Return what the policy is shown of an output.

        Args:
            output: What the program printed, or why it was not run.
            after: The text it follows, if it is put into the policy's turn.
            limit: Most characters of `output` that are shown.
        """
        if self.name == "hermes":
            return format_response(output, limit=limit)
        return format_output(output, after=after, limit=limit)


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
)

PLAIN = ToolProtocol(
    name="plain",
    version=1,
    instructions="Solve the problem step by step and put your final answer in \\boxed{}.",
    # No call is ever found; a character no tokenizer holds keeps the rule from being asked.
    trigger="\0",
    inline=True,
)

PROTOCOLS: dict[str, ToolProtocol] = {p.name: p for p in (FENCE, HERMES, PLAIN)}


def protocol(name: str) -> ToolProtocol:
    """Return the protocol of that name.

    Raises:
        ValueError: There is none.
    """
    if name not in PROTOCOLS:
        raise ValueError(f"protocol is {name!r}; it must be one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
