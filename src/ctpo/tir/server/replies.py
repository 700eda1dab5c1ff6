"""Reading what OpenAI-compatible servers send: text, thoughts, calls and why it ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ctpo.tir.calls import TOOL_CLOSE, TOOL_OPEN

End = Literal["stop", "call", "length", "context", "filter", "broken"]

# Finish reasons in small letters, by what they mean. What is in none of them is `broken`: an answer
# that may be half of one is not to be graded.
_ENDS: dict[End, frozenset[str]] = {
    "stop": frozenset(
        "stop stopped stop_sequence stop_token stop_str stop_string eos eos_token eos_token_id "
        "end end_turn end_of_turn complete completed finished done normal success null".split()
    ),
    "call": frozenset(("tool_calls", "tool_call", "tool_use", "function_call")),
    # `repetition`: vLLM cuts off what goes round in circles, if asked to.
    "length": frozenset(
        "length max_length model_length max_tokens max_new_tokens max_output_tokens token_limit "
        "length_limit length_capped repetition".split()
    ),
    "context": frozenset(
        "model_context_window_exceeded context_window_exceeded context_length_exceeded "
        "context_length context_limit context_overflow".split()
    ),
    "filter": frozenset(
        "content_filter content_filtered filter filtered safety recitation blocklist blocked "
        "prohibited_content spii refusal sensitive moderation content_policy guardrail_intervened "
        "error_toxic image_safety language".split()
    ),
}


@dataclass
class Reply:
    """One answer as far as it has come.

    Attributes:
        reasoning: What the model thought, where the server tells that apart.
        pieces: How many pieces of text or thought there were.
        counted: Tokens, as the server counts them.
        finish: The server's word for why it ended; None so far.
    """

    reasoning: str = ""
    pieces: int = 0
    counted: int | None = None
    finish: str | None = None
    _texts: list[str] = field(default_factory=list)
    _calls: dict[Any, list[str]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._texts)

    @property
    def tokens(self) -> int:
        """Tokens: as the server counts them, else one for each piece."""
        return self.counted or self.pieces

    @property
    def calls(self) -> str:
        """Calls that the server took out of the text, written as the protocol `hermes` has them."""
        bodies = (json.dumps({"name": n, "arguments": a}) for n, a in self._calls.values())
        return "\n".join(f"{TOOL_OPEN}\n{body}\n{TOOL_CLOSE}" for body in bodies)

    @property
    def end(self) -> End:
        """What the finish reason means; without one the answer is taken as finished."""
        if self.finish is None:
            return "stop"
        word = self.finish.lower()
        return next((end for end, words in _ENDS.items() if word in words), "broken")

    def add(self, chunk: Mapping[str, Any]) -> str:
        """Take in one object of the stream; returns the text that came with it."""
        usage = chunk.get("usage") or {}
        self.counted = usage.get("completion_tokens") or self.counted
        text = ""
        for choice in chunk.get("choices") or []:
            part = choice.get("delta") or choice.get("message") or choice
            said, thought = _parts(part.get("content", part.get("text")))
            thought += next((t for t in map(_thought, _thoughts(part)) if t), "")
            said += part.get("refusal") or ""
            self.pieces += bool(said or thought)
            self.reasoning += thought
            text += said
            for number, call in enumerate(part.get("tool_calls") or []):
                self._call(call.get("index", number), call.get("function") or {})
            if part.get("function_call"):
                self._call("the only one", part["function_call"])
            finish = choice.get("finish_reason")
            if isinstance(finish, dict):  # SGLang's own: {"type": "length", "length": 100}
                finish = finish.get("type")
            self.finish = finish or self.finish
        self._texts.append(text)
        return text

    def _call(self, index: object, function: Mapping[str, Any]) -> None:
        """Put a call's pieces together; its arguments are JSON, cut anywhere."""
        call = self._calls.setdefault(index, ["", ""])
        arguments = function.get("arguments") or ""
        call[0] = call[0] or function.get("name") or ""
        call[1] += arguments if isinstance(arguments, str) else json.dumps(arguments)
        self.pieces += 1


def _thoughts(part: Mapping[str, Any]) -> tuple[Any, ...]:
    """The fields that hold thoughts; a server may send the same under two names."""
    names = ("reasoning_content", "reasoning", "reasoning_details", "thinking", "thought")
    return tuple(part.get(name) for name in names)


def _thought(value: Any) -> str:  # noqa: ANN401 - JSON
    said, thought = _parts(value)
    return said + thought


def _parts(content: Any) -> tuple[str, str]:  # noqa: ANN401 - JSON
    """Return the text and the thoughts in a content: a string, or a list of typed parts."""
    if content is None:
        return "", ""
    if isinstance(content, str):
        return content, ""
    if isinstance(content, list):
        pairs = [_parts(part) for part in content]
        return "".join(said for said, _ in pairs), "".join(thought for _, thought in pairs)
    if not isinstance(content, dict):
        raise ValueError(f"its content is {str(content)[:100]!r}, neither text nor parts of it")
    kind = str(content.get("type") or "text")
    if any(word in kind for word in ("think", "thought", "reason", "summary")):
        inner = next((content[n] for n in ("thinking", "text", "summary") if content.get(n)), None)
        return "", _thought(inner)
    return _parts(content.get("text") or content.get("refusal"))
