"""Connections that must come to the point, and a few that are kept free for who runs the server."""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Descriptors for everything but connections: the sandbox's own, files that are being collected.
_OTHERS = 128
_NO_LINGER = struct.pack("ii", 1, 0)
_OPERATOR = 32
"""Connections beyond the requests that may be at work: /health and /metrics still answer."""


def most_connections() -> int:
    """Allow this process all the descriptors it can have; returns how many connections that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return (1 << 20 if soft == resource.RLIM_INFINITY else soft) - _OTHERS


def most_requests(wanted: int) -> int:
    """Return how many requests may be at work, so that the operator still gets a connection."""
    return max(1, min(wanted, most_connections() - _OPERATOR))


def protocol(seconds: float) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with limits on time and number.

    Args:
        seconds: A client has so long for a request's head, again for its body, for reading an
            answer, and for saying nothing between two requests. Then it is hung up on.
    """
    most = most_connections()
    unfinished: dict[Limited, None] = {}  # in the order in which they began

    class Limited(HttpToolsProtocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:  # noqa: ANN401 - uvicorn's own signature
            super().connection_made(transport)
            self._begin()
            # Who has said the least for the longest makes room.
            while len(self.connections) > most and unfinished:
                next(iter(unfinished)).hang_up()

        def hang_up(self) -> None:
            """End the connection at once, whatever is on its way."""
            self._end()
            self.connections.discard(self)
            # Or the kernel would keep what the client does not read.
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self.transport.abort()

        def _begin(self) -> None:
            self._end()
            unfinished[self] = None
            self._timer = self.loop.call_later(seconds, self.hang_up)

        def _end(self) -> None:
            unfinished.pop(self, None)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def connection_lost(self, exc: Exception | None) -> None:
            self._end()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            # Bytes before a request's first line end uvicorn's own wait for it.
            if self._timer is None and (self.cycle is None or self.cycle.response_complete):
                self._begin()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._begin()

        def on_headers_complete(self) -> None:
            super().on_headers_complete()
            self._begin()

        def on_message_complete(self) -> None:
            self._end()
            super().on_message_complete()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._begin()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._end()

    return Limited
