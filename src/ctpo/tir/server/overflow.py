"""Whether a server's refusal means that its context is full, and how much room it says is left.

No two servers say it alike, and few give a code. What is known of their words is in the tables
here, each with whose they are; the tests hold whole messages.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any, NamedTuple

# Of an error within a stream that began well it is 200.
_STATUSES = frozenset({200, 400, 413, 422, 500})


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


def _each(*patterns: str) -> list[re.Pattern[str]]:
    return [_any(pattern) for pattern in patterns]


# It does not fit. These are true of messages that the narrower tables below know as well.
_FULL = _any(
    r"context[ _-]?(?:length|window|size|limit|overflow)",  # OpenAI, vLLM, llama.cpp, Anthropic
    r"context the overflows",  # LM Studio
    r"max_model_len|max_seq_len",  # vLLM, TensorRT-LLM
    r"maximum (?:\w+ )?(?:context|sequence|model|prompt|input) (?:length|limit)",  # xAI, vLLM
    r"maximum allowed (?:input )?length",  # SGLang, Poolside
    r"maximum number of (?:input |prompt )?tokens",  # Gemini
    r"too many (?:input |prompt )?tokens|tokens? limit|tokens_limit|tokens exceed",  # Cohere, Kimi
    r"reduce (?:the length|the number of|your (?:prompt|message|input))",  # Groq, Cerebras
    r"`inputs`",  # TGI, Together
    r"(?:input|prompt|session|request|query)[ _]length",  # LMDeploy, Qwen
    r"\b(?:prompt|input|messages?|conversation|request)\b.{0,60}\btoo (?:long|large)",  # Bedrock
    r"insufficient capacity for the requested tokens",
    r"exceed session",  # LMDeploy
    r"exceeds the limit of \d+",  # GitHub
    r"超长|上下文|最大长度",  # Zhipu, Qwen
)
# It is the prompt that does not fit: no smaller answer would.
_PROMPT_ALONE = _any(
    r"\b(?:prompt|input|messages?|conversation)\b[^.]{0,60}\b(?:too long|longer than)",
    r"\b(?:prompt|input|query)[ _](?:length|token count)\b[^.]{0,60}\bexceeds",
    r"(?:input|request|prompt)\b.{0,30} exceeds? the (?:available )?context",  # llama.cpp, OpenAI
    r"maximum (?:allowed )?(?:prompt|input) length",
    r"`inputs` must have less",
    r"input token count|prompt token count|too large for model with",
    r"range of input length|input_length_error|exceed session",
    r"request_too_large|exceeds the maximum size",  # Anthropic, in bytes
    r"context window exceeds limit|greater than the context length|context the overflows",
    r"max(?:_completion|_new)?_tokens\W.{0,40}must be (?:at least|greater than) \d, got -",
    r"default_max_tokens \(-?\d+\) must be greater than 0",
)
# The most there may be in all. The narrower patterns are first.
_LIMIT = _each(
    r"must be <= (\d+)",
    r"exceed context limit: \d+ \+ \d+ > (\d+)",
    r"> (\d+) maximum",
    r"(\d+) maximum context",
    r"tokens allowed \((\d+)\)",
    r"(?:max_seq_len|max_model_len|n_ctx)\W{0,4}(\d+)",
    r"(?:context|sequence|model|maximum prompt|maximum input|allowed) (?:length|window|size|limit)"
    r"(?: is| of|:)?(?: only)?\W{0,3}(\d+)",
    r"limit(?: is| of|:)? (\d+)",
)
# What the prompt takes of it.
_PROMPT = _each(
    r"exceed context limit: (\d+) \+",
    r"(\d+) (?:tokens )?(?:in|of|from) (?:the |your )?(?:messages|prompt|text input|input)",
    r"(\d+) (?:`inputs`|input|prompt) tokens",
    r"(?:messages resulted in|prompt contains|request contains|keep the first) (\d+)",
    r"(?:input|request|prompt|token count|\w*prompt_len|prompt length|requested tokens) "
    r"\((?:length )?(\d+)",
    r"(?:n_prompt_tokens|too long:|token count of|input length)\W{1,4}(\d+)",
)
# What was asked for in all, prompt and answer.
_TOTAL = _each(
    r"requested(?: about| a total of|:)? (\d+)(?: tokens| \(|\b(?! output))",
    r"current length is (\d+)",
)
# The most that this model ever answers.
_LONGEST_ANSWER = _each(
    r"at most (\d+) completion tokens",  # OpenAI, SGLang
    r"range of max_\w*tokens\W{0,4}is \[\d+, (\d+)\]",  # DeepSeek
    r"max_\w*tokens\W.{0,60}less than or equal to\W{0,3}(\d+)",  # Groq
    r"max_\w*tokens\W.{0,60}exceeds model maximum \((\d+)\)",  # Bedrock
    r"max_\w*tokens\W.{0,60}a value <= (\d+)",
)


class Overflow(NamedTuple):
    """A context that is too small for what was asked.

    Attributes:
        message: The server's words.
        room: Tokens that it says the answer may have, below 1 if the prompt alone is too long; None
            if it does not say.
    """

    message: str
    room: int | None


def find_overflow(status: int, reply: str, asked: int | None) -> Overflow | None:
    """Return what a refusal says of the context; None if it is about something else.

    Args:
        status: The reply's HTTP status; 200 for an error within a stream.
        reply: Its body, or the error in it.
        asked: Tokens that were asked for; None if that was left to the server.
    """
    message = _plain(reply)
    longest = _number(_LONGEST_ANSWER, message)
    if status not in _STATUSES or not (
        longest is not None or _FULL.search(message) or _PROMPT_ALONE.search(message)
    ):
        return None
    return Overflow(message, longest if longest is not None else _room(message, asked))


def _room(message: str, asked: int | None) -> int | None:
    limit, prompt = _number(_LIMIT, message), _number(_PROMPT, message)
    total = _number(_TOTAL, message)
    # vLLM stops counting a prompt where it no longer fits, and says "at least".
    counted = "at least" not in message
    room = None
    if counted and limit is not None and prompt is not None:
        room = limit - prompt
        query = re.search(r"query length \((\d+)\)", message)  # TensorRT-LLM counts in two parts
        room -= int(query[1]) if query else 0
    elif counted and limit is not None and total is not None:
        room = limit - total + (asked or 0)
    if _PROMPT_ALONE.search(message) and (room is None or asked is None or room >= asked):
        return 0
    return room


def _number(patterns: list[re.Pattern[str]], message: str) -> int | None:
    found = next(filter(None, (pattern.search(message) for pattern in patterns)), None)
    return None if found is None else int(found[1])


def _plain(reply: str) -> str:
    """Return a body's words: JSON's escapes undone, and numbers without commas."""
    return re.sub(r"(?<=\d),(?=\d{3})", "", " ".join(_words(reply)))


def _words(value: Any) -> list[str]:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return [word for name, one in value.items() for word in (f"{name}:", *_words(one))]
    if isinstance(value, list):
        return [word for one in value for word in _words(one)]
    if isinstance(value, str) and value.lstrip().startswith("{"):  # as gateways wrap it, too
        with contextlib.suppress(ValueError, RecursionError):
            return _words(json.loads(value))
    return [] if value is None else [str(value)]
