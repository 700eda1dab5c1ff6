"""A client of OpenAI-compatible servers: one streamed generation, cut where a call is complete.

Every request is streamed. That way a turn ends at the same place as with a model of one's own, on
any server: none can stop at "the end of a Python block", but each can be hung up on.
"""

from __future__ import annotations

import json
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx

Api = Literal["chat", "completions"]

logger = logging.getLogger(__name__)

_TRY_AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_OVERFLOW = re.compile(
    r"context[ _](?:length|window|size)|maximum context|exceeds? the (?:available )?context|"
    r"max_model_len|prompt is too long|too many tokens",
    re.IGNORECASE,
)
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0
_FEWEST_TOKENS = 16
_QUIET = 10.0  # seconds in which the same failure is told once


class EndpointError(RuntimeError):
    """The server cannot be used: it is not there, or refuses the request. What was done is kept."""


class ContextOverflow(Exception):  # noqa: N818 - an outcome, recorded with the answer
    """The conversation does not fit the model's context."""


class Interrupted(Exception):  # noqa: N818 - the caller's own doing
    """The caller asked for the end."""


class _Broken(Exception):
    """This attempt failed in a way that another may not."""

    def __init__(self, reason: str, wait: float | None = None, *, silent: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        self.silent = silent  # the stream ended before it had begun


@dataclass(frozen=True)
class Generated:
    """One turn.

    Attributes:
        text: What the model said, up to the end of its first call.
        reasoning: What it thought where the server tells that apart; "" else.
        reason: `stop` (the model ended its turn), `call` (cut behind a call) or `length`.
        tokens: Tokens generated: as the server counts them, else one for each piece of the stream.
    """

    text: str
    reasoning: str
    reason: Literal["stop", "call", "length"]
    tokens: int


@dataclass
class Endpoint:
    """A model on a server. Thread-safe.

    Attributes:
        url: Base address, with or without `/v1`.
        model: The model's name there.
        api: `chat` sends messages, `completions` a prompt.
        key: Sent as a bearer token, if given.
        retries: How often a failed request is repeated, waiting twice as long each time: half a
            second first, a minute at most, and what the server asks for in `Retry-After`.
        timeout: Seconds without a single byte after which a request counts as failed.
        extra: More fields for every request, such as `{"top_k": -1}`. `top_p` is 1 unless it is
            among them.
        stopped: Set it to end all requests.
    """

    url: str
    model: str
    api: Api = "chat"
    key: str | None = None
    retries: int = 8
    timeout: float = 600.0
    extra: Mapping[str, Any] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        if not re.match(r"https?://", self.url):
            raise ValueError(f"endpoint is {self.url!r}; it must begin with http:// or https://")
        if self.api not in ("chat", "completions"):
            raise ValueError(f"api is {self.api!r}; it must be chat or completions")
        if self.retries < 0:
            raise ValueError(f"retries is {self.retries}; it must be 0 or more")
        base = self.url.rstrip("/")
        self._base = base if base.endswith("/v1") else f"{base}/v1"
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        self._client = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(self.timeout, connect=10.0),
            limits=httpx.Limits(max_connections=None),
            trust_env=False if re.search(r"//(localhost|127\.)", self.url) else True,
        )
        self._random = random.Random()
        self._lock = threading.Lock()
        self._told = (0.0, "")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def models(self) -> list[str]:
        """Return the names the server gives its models; empty if it does not say.

        Raises:
            EndpointError: Nothing answers at the address.
        """
        try:
            reply = self._client.get(f"{self._base}/models", timeout=30.0)
            return [str(model["id"]) for model in reply.json()["data"]]
        except httpx.TransportError as error:
            raise EndpointError(
                f"no server answers at {self.url}: {error or type(error).__name__}"
            ) from error
        except (ValueError, KeyError, TypeError):
            return []

    def generate(
        self,
        context: Sequence[Mapping[str, str]] | str,
        *,
        temperature: float,
        seed: int,
        max_tokens: int,
        call_end: Callable[[str], int | None],
        trigger: str,
    ) -> Generated:
        """Generate one turn.

        Args:
            context: Messages for `chat`, the whole prompt as text for `completions`.
            temperature: Divides the logits; 0 takes the likeliest token.
            seed: Sent to the server, which may or may not heed it.
            max_tokens: Most tokens to generate. Halved where the server says that so many do not
                fit, until it is clear that the context itself does not.
            call_end: Given the text so far, the index behind its first call, or None.
            trigger: A character without which a call cannot be completed.

        Raises:
            ContextOverflow: The context does not fit.
            EndpointError: The server refuses the request, or fails again and again.
            Interrupted: `stopped` was set.
        """
        where = "chat/completions" if self.api == "chat" else "completions"
        body: dict[str, Any] = {
            "model": self.model,
            "messages" if self.api == "chat" else "prompt": context,
            "temperature": temperature,
            "top_p": 1.0,  # or many a server takes the 0.95 of the model's own configuration
            "seed": seed % 2**31,
            "max_tokens": max_tokens,
            "stream": True,
        } | dict(self.extra)
        failures = 0
        while True:
            try:
                return self._attempt(f"{self._base}/{where}", body, call_end, trigger)
            except ContextOverflow:
                body["max_tokens"] //= 2
                if body["max_tokens"] < _FEWEST_TOKENS:
                    raise
            except (_Broken, httpx.TransportError) as error:
                failures += 1
                # llama-cpp-python ends a stream without a word where it refuses a request, and says
                # why only if nothing is streamed.
                body["stream"] = not getattr(error, "silent", False)
                reason = str(error) or type(error).__name__
                if failures > self.retries:
                    raise EndpointError(
                        f"{self.url} failed {failures} times in a row, the last time with: {reason}"
                    ) from error
                wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (failures - 1))
                wait *= 0.75 + 0.5 * self._random.random()  # so that not all come back at once
                wait = max(wait, getattr(error, "wait", None) or 0)
                self._tell(reason, wait)
                if self.stopped.wait(wait):
                    raise Interrupted from None

    def _tell(self, reason: str, wait: float) -> None:
        """Log a failure; the same one of the other requests side by side is not told again."""
        with self._lock:
            now = time.monotonic()
            if reason == self._told[1] and now < self._told[0] + _QUIET:
                return
            self._told = (now, reason)
        logger.warning("%s: %s; again in %.1f s", self.url, reason, wait)

    def _attempt(
        self,
        url: str,
        body: Mapping[str, Any],
        call_end: Callable[[str], int | None],
        trigger: str,
    ) -> Generated:
        text, reasoning, pieces, counted, reason = "", "", 0, None, None
        with self._client.stream("POST", url, json=body) as reply:
            if reply.status_code != 200:
                self._refused(reply)
            for chunk in _chunks(reply):
                if self.stopped.is_set():
                    raise Interrupted
                if "error" in chunk:
                    raise _Broken(f"the server broke off: {str(chunk['error'])[:300]}")
                counted = (chunk.get("usage") or {}).get("completion_tokens", counted)
                for choice in chunk.get("choices") or []:
                    new, thought = _said(choice)
                    pieces += bool(new or thought)
                    text, reasoning = text + new, reasoning + thought
                    reason = choice.get("finish_reason") or reason
                    if trigger in new and (end := call_end(text)) is not None:
                        return Generated(text[:end], reasoning, "call", counted or pieces)
        if reason is None:
            raise _Broken("the stream ended before the answer did", silent=not pieces)
        return Generated(
            text, reasoning, "length" if reason == "length" else "stop", counted or pieces
        )

    def _refused(self, reply: httpx.Response) -> None:
        """Raise what the status and the message call for."""
        reply.read()
        message = reply.text[:500].strip()
        if reply.status_code in (400, 413, 422, 500) and _OVERFLOW.search(message):
            raise ContextOverflow(message)
        if reply.status_code in _TRY_AGAIN:
            after = reply.headers.get("Retry-After", "")
            wait = float(after) if after.isdigit() else None
            raise _Broken(f"status {reply.status_code}: {message[:200]}", wait)
        there = ", ".join(self.models()) or "it does not say which"
        raise EndpointError(
            f"{self.url} refuses the request for model {self.model!r} with status "
            f"{reply.status_code}: {message} (models there: {there})"
        )


def _chunks(reply: httpx.Response) -> Iterator[dict[str, Any]]:
    """Yield the objects of an event stream; of a server that does not stream, its one object."""
    if "json" in reply.headers.get("Content-Type", ""):
        reply.read()
        yield _object(reply.text)
        return
    for line in reply.iter_lines():
        name, _, data = line.partition(":")
        data = data.strip()
        if name == "data" and data == "[DONE]":
            return
        if name == "data" and data:
            yield _object(data)


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise _Broken(f"the server sent what is not JSON: {text[:200]!r}") from error
    if not isinstance(value, dict):
        raise _Broken(f"the server sent what is no object: {text[:200]!r}")
    return value


def _said(choice: Mapping[str, Any]) -> tuple[str, str]:
    """Return the text and the reasoning of a piece, of either API, streamed or not."""
    part = choice.get("delta") or choice.get("message") or choice
    text = part.get("content", part.get("text")) or ""
    return str(text), str(part.get("reasoning_content") or part.get("reasoning") or "")
