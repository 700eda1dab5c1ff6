"""One turn on a server: what a whole reply makes, and how it fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ctpo.tir.server.events import Broken
from ctpo.tir.server.overflow import find_overflow
from ctpo.tir.server.replies import Reply

_FEWEST_TOKENS = 16


class EndpointError(RuntimeError):
    """The server cannot be used: it is not there, or refuses the request. What was done is kept."""


class AnswerFailed(EndpointError):
    """The server is there, but this answer it gave again and again in a way that is of no use."""


class ContextOverflow(Exception):  # noqa: N818 - an outcome, recorded with the answer
    """The conversation does not fit the model's context.

    Attributes:
        room: Tokens the server says an answer may have; None if it does not say.
    """

    def __init__(self, message: str, room: int | None = None) -> None:
        super().__init__(message)
        self.room = room


@dataclass(frozen=True)
class Generated:
    """One turn.

    Attributes:
        text: What the model said, up to the end of its first call.
        reasoning: What it thought where the server tells that apart; "" else.
        reason: `stop` (the model ended its turn), `call` (cut behind a call), `length`, `context`
            (cut off where the context was full) or `filter` (cut off by a content filter).
        tokens: Tokens generated: as the server counts them, else one for each piece of the stream.
    """

    text: str
    reasoning: str
    reason: Literal["stop", "call", "length", "context", "filter"]
    tokens: int


def finished(
    reply: Reply, cut: Literal["length", "context"], call_end: Callable[[str], int | None]
) -> Generated:
    """Return the turn that a whole reply makes.

    Args:
        reply: All of it.
        cut: What a limit of tokens means: the turn's own, or what the context had room for.
        call_end: Of `Endpoint.generate`.
    """
    text, end = reply.text, reply.end
    if end == "broken":
        if find_overflow(200, text, None):  # LMDeploy writes it there
            raise ContextOverflow(text[:200], 0)
        raise Broken(f"the server ended the answer with {reply.finish!r}")
    if end not in ("length", "context", "filter") and reply.calls:
        text += "\n" * (text[-1:] not in ("", "\n")) + reply.calls
    if end not in ("context", "filter") and (behind := call_end(text)) is not None:
        return Generated(text[:behind], reply.reasoning, "call", reply.tokens)
    if end == "call":
        raise AnswerFailed(
            "the server made calls of its own of what the model wrote, which this protocol cannot "
            "run; start the server without its parser of tool calls, or take the protocol hermes"
        )
    if end == "length":
        # An answer that is over before it has begun had no room (LMDeploy).
        end = cut if reply.pieces else "context"
    return Generated(text, reply.reasoning, end, reply.tokens)


def fewer(full: ContextOverflow, asked: int | None, told: bool) -> int:  # noqa: FBT001
    """Return how many tokens to ask for next; `told`: whether the last number was the server's."""
    if asked is None or (full.room is not None and full.room < 1):
        raise full
    if full.room is not None and full.room < asked:
        return full.room
    if full.room == asked and told:
        return asked - 1  # SGLang wants one token more than it says
    if asked // 2 < _FEWEST_TOKENS:
        raise full
    return asked // 2
