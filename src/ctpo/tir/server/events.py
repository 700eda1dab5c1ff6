"""A server's reply as it comes over the line: an event stream, or what should have been one."""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import httpx2
import openai

_LONGEST_ASKED = 120.0  # seconds that a server may ask for in `Retry-After`


class Broken(Exception):
    """This attempt failed in a way that another may not.

    Args:
        reason: In words.
        wait: Seconds that the server wants to be left alone for.
        silent: Whether the stream ended before it had begun.
        answered: Whether it is this answer that fails, and not the server.
    """

    def __init__(
        self,
        reason: str,
        wait: float | None = None,
        *,
        silent: bool = False,
        answered: bool = True,
    ) -> None:
        super().__init__(reason)
        self.wait = wait
        self.silent = silent
        self.answered = answered


class Events(openai.Stream[Any]):
    """The objects of a reply's event stream; of a server that does not stream, its one object.

    Attributes:
        done: Whether the end of the stream was told.
    """

    done = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            yield from self._objects()
        except httpx2.RequestError as error:
            raise Broken(f"the stream broke off: {error or type(error).__name__}") from error
        except UnicodeDecodeError as error:
            raise Broken(f"the server sent what is not UTF-8: {error}") from error

    def _objects(self) -> Iterator[dict[str, Any]]:
        reply = self.response
        if "json" in reply.headers.get("Content-Type", ""):
            reply.read()
            if not reply.text.startswith(("data:", "event:", ":")):
                yield _object(reply.text)
                self.done = True
                return
        # With the blank line that some servers leave out behind the last event.
        for event in self._decoder.iter_bytes(chain(reply.iter_bytes(), [b"\n\n"])):
            for data in _split(event.data):
                if data.startswith("[DONE]"):
                    self.done = True
                    return
                yield _object(data)


def _split(data: str) -> list[str]:
    """Cut an event's data: a server without blank lines between events makes many of one."""
    lines = [line for line in data.split("\n") if line.strip()]
    if len(lines) > 1 and all(line.startswith(("{", "[DONE]")) for line in lines):
        return lines
    return [data.strip()] if lines else []


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Broken(f"the server sent what is not JSON: {text[:200]!r}") from error
    if not isinstance(value, dict):
        raise Broken(f"the server sent what is no object: {text[:200]!r}")
    return value


def error_in(chunk: Mapping[str, Any]) -> str:
    """Return what is wrong, in JSON, if the object says that something is."""
    error = chunk.get("error") or ("choices" not in chunk and chunk.get("detail"))
    if not error and chunk.get("object") == "error":
        error = chunk
    return "" if not error else error if isinstance(error, str) else json.dumps(error)


def wait_asked(headers: httpx2.Headers) -> float | None:
    """Return the seconds that a server wants to be left alone for, two minutes at most."""
    for name, unit in (("Retry-After-Ms", 0.001), ("Retry-After", 1.0)):
        text = headers.get(name, "").strip()
        if re.fullmatch(r"\d+(\.\d*)?|\.\d+", text):
            return min(_LONGEST_ASKED, float(text) * unit)
        try:
            date = email.utils.parsedate_to_datetime(text)
        except ValueError:
            continue
        return min(_LONGEST_ASKED, max(0.0, date.timestamp() - time.time()))
    return None
