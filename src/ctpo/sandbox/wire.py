"""Messages between the sandbox's own processes: JSON and file descriptors on a SEQPACKET socket."""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Sequence
from typing import Any

_MOST_BYTES = 1 << 17
_MOST_DESCRIPTORS = 8
_INT = array.array("i").itemsize

Header = dict[str, Any]


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends; a message arrives whole or not at all."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(connection: socket.socket, header: Header, descriptors: Sequence[int] = ()) -> None:
    """Send one message; the receiver gets duplicates of `descriptors`.

    Raises:
        ValueError: It is longer than any may be.
    """
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    message = json.dumps(header, separators=(",", ":")).encode()
    if len(message) > _MOST_BYTES:
        raise ValueError(f"a message of {len(message)} bytes")
    connection.sendmsg([message], rights if descriptors else [])


def receive(connection: socket.socket) -> tuple[Header, list[int]]:
    """Receive one message: its header and its descriptors (close-on-exec).

    Raises:
        EOFError: The other side is gone.
        ValueError: What came is no message of ours.
    """
    data, ancillary, flags, _ = connection.recvmsg(
        _MOST_BYTES, socket.CMSG_SPACE(_MOST_DESCRIPTORS * _INT), socket.MSG_CMSG_CLOEXEC
    )
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % _INT])
    try:
        if not data:
            raise EOFError("the other side closed the connection")
        if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
            raise ValueError("a message was cut short")
        try:
            header = json.loads(data)
        except RecursionError:
            raise ValueError("a message that is nested too deeply") from None
        if not isinstance(header, dict):
            raise ValueError(f"a message that is no object: {data[:40]!r}")
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return header, list(descriptors)
