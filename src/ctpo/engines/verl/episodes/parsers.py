"""Our two ways to write a call, for verl's own `tool_agent` loop: `ctpo-fence`, `ctpo-hermes`.

That loop does not cut a turn where a call is complete, so what the policy writes behind a call it
writes without the result; the agent loop `ctpo` cuts.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import Any

from verl.experimental.agent_loop.tool_parser import FunctionCall, ToolParser

from ctpo.tir.calls import TOOL_CLOSE, TOOL_NAME, Call, find_fenced_call, find_json_call
from ctpo.tir.turn_text import turn_text

FENCE, HERMES = "ctpo-fence", "ctpo-hermes"

# An argument of the tool that no policy is told of: why there is nothing to run.
PROBLEM = "problem"


class _Parser(ToolParser):
    async def extract_tool_calls(
        self,
        responses_ids: list[int],
        tools: Sequence[Any] | None = None,
    ) -> tuple[str, list[FunctionCall]]:
        """Return the turn's text without its first call, and that call.

        Args:
            responses_ids: The turn, as sampled.
            tools: The schemas of the tools there are.
        """
        text = turn_text(self.tokenizer, responses_ids)
        names = dict.fromkeys([TOOL_NAME, *(tool.function.name for tool in tools or ())])
        call = self.find(text, names)
        if call is None:
            return text, []
        arguments = dict(call.arguments) if call.tool != TOOL_NAME else {"code": call.code}
        if call.problem is not None:
            arguments[PROBLEM] = call.problem
        found = FunctionCall(name=call.tool, arguments=json.dumps(arguments))
        return text[: call.start], [found]

    @abstractmethod
    def find(self, text: str, names: Collection[str]) -> Call | None: ...


class FenceParser(_Parser):
    """The first closed Python block of a turn; see `tir.calls.find_fenced_call`."""

    def find(self, text: str, names: Collection[str]) -> Call | None:
        """Return the first call."""
        return find_fenced_call(text)


class HermesParser(_Parser):
    """The first `<tool_call>` of a turn; see `tir.calls.find_json_call`.

    Unlike verl's `hermes` it answers a call that cannot be read, and reads line breaks in strings.
    """

    @property
    def stop_token_ids(self) -> list[int]:
        """The closing tag, where it is one token."""
        ids = self.tokenizer.encode(TOOL_CLOSE, add_special_tokens=False)
        return ids if len(ids) == 1 else []

    def find(self, text: str, names: Collection[str]) -> Call | None:
        """Return the first call, to whichever tool verl has."""
        return find_json_call(text, names)


def register() -> None:
    """Register the parsers with verl. Doing so again changes nothing."""
    ToolParser.register(FENCE)(FenceParser)
    ToolParser.register(HERMES)(HermesParser)


register()
