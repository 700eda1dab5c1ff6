"""A client of OpenAI-compatible servers: one streamed generation, cut where a call is complete.

Every request is streamed. That way a turn ends at the same place as with a model of one's own, on
any server: none can stop at "the end of a Python block", but each can be hung up on.

Connections, redirects, event streams and errors are the `openai` client's. Its retries are not
used: they know nothing of a stream that breaks off, of an answer that ends in `abort` or of a
request for fewer tokens, nobody can end their sleep, they wait 8 seconds at most, which no server
restarts in, and give up on a server that asks for more than two minutes. Nor are its types of
replies, which would hold a list where a text should be, and pass over what they do not know.
"""

from __future__ import annotations

import logging
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

import httpx2
import openai

from ctpo.tir.server.address import PATHS, Api, base_of
from ctpo.tir.server.events import Broken, Events, error_in, wait_asked
from ctpo.tir.server.overflow import find_overflow
from ctpo.tir.server.replies import Reply
from ctpo.tir.server.turn import (
    AnswerFailed,
    ContextOverflow,
    EndpointError,
    Generated,
    fewer,
    finished,
)

logger = logging.getLogger(__name__)

_TRY_AGAIN = frozenset({408, 409, 425, 429, 499})  # and all from 500
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0
_QUIET = 10.0  # seconds in which the same failure is told once


class Interrupted(Exception):  # noqa: N818 - the caller's own doing
    """The caller asked for the end."""


@dataclass
class Endpoint:
    """A model on a server. Thread-safe.

    Attributes:
        url: Base address. One without a path is given `/v1`, any other is taken as it is; it may
            name the whole path up to `chat/completions`, and a query.
        model: The model's name there.
        api: `chat` sends messages, `completions` a prompt.
        key: Sent as a bearer token, if given.
        retries: How often a failed request is repeated, waiting twice as long each time: half a
            second first, a minute at most, and what the server asks for in `Retry-After`, up to two
            minutes.
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
        if self.api not in PATHS:
            raise ValueError(f"api is {self.api!r}; it must be chat or completions")
        if self.retries < 0:
            raise ValueError(f"retries is {self.retries}; it must be 0 or more")
        base, query = base_of(self.url, self.api)
        here = re.search(r"//(localhost|127\.|\[::1\]|0\.0\.0\.0)", self.url)
        self._client = openai.OpenAI(
            base_url=base,
            api_key=self.key or "none",
            default_query=query,
            max_retries=0,
            http_client=openai.DefaultHttpxClient(
                timeout=httpx2.Timeout(self.timeout, connect=10.0),
                limits=httpx2.Limits(max_connections=None),
                trust_env=not here,
            ),
        )
        # Without a key none is sent; not even the one that the client would find by itself.
        self._headers = {} if self.key else {"Authorization": openai.Omit()}
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
            reply: Any = self._client.get(
                "/models", cast_to=object, options={"headers": self._headers, "timeout": 30.0}
            )
        except openai.APIConnectionError as error:
            raise EndpointError(f"no server answers at {self.url}: {_cause(error)}") from error
        except (openai.APIError, ValueError):
            return []
        try:
            return [str(model["id"]) for model in reply["data"]]
        except (KeyError, TypeError):
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
            max_tokens: Most tokens to generate. Where the server says that so many do not fit, it
                is asked for as many as it says do, else for half as many, again and again.
            call_end: Given the text so far, the index behind its first call, or None. While the
                stream goes on it is given whole lines only: what closes a block at the end of a
                piece may be the beginning of something else.
            trigger: Characters of which a call has at least one.

        Raises:
            ContextOverflow: The context does not fit.
            AnswerFailed: The server fails with this request again and again, but is there.
            EndpointError: The server refuses the request, or is not there.
            Interrupted: `stopped` was set.
        """
        body: dict[str, Any] = {
            "model": self.model,
            "messages" if self.api == "chat" else "prompt": context,
            "temperature": temperature,
            "top_p": 1.0,  # or many a server takes the 0.95 of the model's own configuration
            "seed": seed % 2**31,
            "max_tokens": max_tokens,
            "stream": True,
        } | dict(self.extra)
        budget = next(
            (n for n in ("max_completion_tokens", "max_tokens") if isinstance(body.get(n), int)), ""
        )
        failures, told = 0, False
        cut: Literal["length", "context"] = "length"
        while True:
            try:
                return self._attempt(body, body.get(budget), cut, call_end, trigger)
            except ContextOverflow as full:
                body[budget], told = fewer(full, body.get(budget), told), full.room is not None
                cut = "context"
                self._tell(f"{str(full)[:200]}; asks for {body[budget]} tokens")
            except (Broken, openai.APIConnectionError) as error:
                failures += 1
                # llama-cpp-python ends a stream without a word where it refuses a request, and says
                # why only if nothing is streamed.
                body["stream"] = not getattr(error, "silent", False)
                reason = _cause(error)
                if failures > self.retries:
                    kind = AnswerFailed if getattr(error, "answered", False) else EndpointError
                    raise kind(
                        f"{self.url} failed {failures} times in a row, the last time with: {reason}"
                    ) from error
                wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (failures - 1))
                wait *= 0.75 + 0.5 * self._random.random()  # so that not all come back at once
                wait = max(wait, getattr(error, "wait", None) or 0)
                self._tell(reason, f"; again in {wait:.1f} s")
                if self.stopped.wait(wait):
                    raise Interrupted from None

    def _tell(self, what: str, then: str = "") -> None:
        """Log a failure; the same one of the other requests side by side is not told again."""
        with self._lock:
            now = time.monotonic()
            if what == self._told[1] and now < self._told[0] + _QUIET:
                return
            self._told = (now, what)
        logger.warning("%s: %s%s", self.url, what, then)

    def _attempt(
        self,
        body: Mapping[str, Any],
        asked: int | None,
        cut: Literal["length", "context"],
        call_end: Callable[[str], int | None],
        trigger: str,
    ) -> Generated:
        reply, unseen = Reply(), ""
        with self._open(body, asked) as events:
            for chunk in events:
                if self.stopped.is_set():
                    raise Interrupted
                if told := error_in(chunk):
                    overflow = find_overflow(200, told, asked)
                    if overflow is None:
                        raise Broken(f"the server broke off: {told[:300]}")
                    if not reply.pieces:
                        raise ContextOverflow(*overflow)
                    return Generated(reply.text, reply.reasoning, "context", reply.tokens)
                try:
                    new = reply.add(chunk)
                except (AttributeError, TypeError, ValueError) as error:
                    raise Broken(f"the server sent {str(chunk)[:200]}: {error}") from error
                unseen += new
                if "\n" in new and _holds(unseen, trigger):
                    text = reply.text
                    lines, _, unseen = text.rpartition("\n")
                    if (end := call_end(lines)) is not None:
                        return Generated(text[:end], reply.reasoning, "call", reply.tokens)
        if reply.finish is None and not (events.done and reply.pieces):
            raise Broken("the stream ended before the answer did", silent=not reply.pieces)
        return finished(reply, cut, call_end)

    def _open(self, body: Mapping[str, Any], asked: int | None) -> Events:
        try:
            events = self._client.post(
                PATHS[self.api],
                cast_to=object,
                body=body,
                options={"headers": self._headers},
                stream=True,
                stream_cls=Events,
            )
        except openai.APIStatusError as error:
            self._refused(error.response, asked)
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, httpx2.TooManyRedirects):
                raise EndpointError(f"{self.url} is redirected in circles") from error
            raise
        if events.response.request.method != "POST":
            self._redirected(events.response)
        return events

    def _refused(self, reply: httpx2.Response, asked: int | None) -> NoReturn:
        """Raise what the status and the message call for."""
        status, message = reply.status_code, reply.text.strip()
        if reply.request.method != "POST":
            self._redirected(reply)
        overflow = find_overflow(status, message, asked)
        if overflow is not None:
            raise ContextOverflow(*overflow)
        if status in _TRY_AGAIN or status >= 500:
            # A request may bring down the one that works on it: 500 says nothing of the others.
            raise Broken(
                f"status {status}: {message[:200]}",
                wait_asked(reply.headers),
                answered=status == 500,
            )
        if status in range(300, 400):
            where = reply.headers.get("Location", "an address that it does not name")
            message = f"it is to be found at {where}. {message}"
        there = ", ".join(self.models()) or "it does not say which"
        raise EndpointError(
            f"{self.url} refuses the request for model {self.model!r} at {reply.request.url.path} "
            f"with status {status}: {message[:500]} (models there: {there})"
        )

    def _redirected(self, reply: httpx2.Response) -> NoReturn:
        # As browsers do, a client turns a request that is sent on by 301 to 303 into a GET.
        raise EndpointError(
            f"{self.url} sends requests on to {reply.url}, with a status that loses what they "
            "ask; give that address itself"
        )


def _holds(text: str, characters: str) -> bool:
    return any(character in text for character in characters)


def _cause(error: BaseException) -> str:
    """What went wrong; the client's own errors say so only in what they were raised from."""
    if isinstance(error, openai.APIConnectionError) and error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__
