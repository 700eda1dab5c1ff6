"""Our two ways to write a call, for verl's own `tool_agent` loop: `ctpo-fence`, `ctpo-hermes`.

That loop does not cut a turn where a call is complete, so what the policy writes behind a call it
writes without the result; the agent loop `ctpo` cuts.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from verl.experimental.agent_loop.tool_parser import FunctionCall, ToolParser

from ctpo.tir.calls import TOOL_CLOSE, TOOL_NAME, TOOL_OPEN, Call, find_fenced_call, find_json_call
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
        call = self.find(text)
        if call is None:
            return text, []
        others = {tool.function.name for tool in tools or ()} - {TOOL_NAME}
        return text[: call.start], [self.written(text, call, others)]

    @abstractmethod
    def find(self, text: str) -> Call | None: ...

    def written(self, text: str, call: Call, others: set[str]) -> FunctionCall:
        """Return the call as verl takes it."""
        arguments = {"code": call.code}
        if call.problem is not None:
            arguments[PROBLEM] = call.problem
        return FunctionCall(name=TOOL_NAME, arguments=json.dumps(arguments))


class FenceParser(_Parser):
    """The first closed Python block of a turn; see `tir.calls.find_fenced_call`."""

    def find(self, text: str) -> Call | None:
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

    def find(self, text: str) -> Call | None:
        """Return the first call."""
        return find_json_call(text)

    def written(self, text: str, call: Call, others: set[str]) -> FunctionCall:
        """Return the call as verl takes it, to another tool if that is what is called."""
        if call.problem is not None and others:
            body = text[call.start + len(TOOL_OPEN) : call.end].lstrip()
            try:
                value, _ = json.JSONDecoder(strict=False).raw_decode(body)
            except (ValueError, RecursionError):
                value = None
            if isinstance(value, dict) and value.get("name") in others:
                arguments = json.dumps(value.get("arguments", {}))
                return FunctionCall(name=value["name"], arguments=arguments)
        return super().written(text, call, others)


def register() -> None:
    """Register the parsers with verl. Doing so again changes nothing."""
    ToolParser.register(FENCE)(FenceParser)
    ToolParser.register(HERMES)(HermesParser)


register()
