"""Messages on a Unix stream socket: a length, a JSON header, raw bodies, file descriptors."""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from collections.abc import Sequence
from typing import Any

_LENGTH = struct.Struct("!I")
_MOST_HEADER_BYTES = 1 << 20
_MOST_DESCRIPTORS = 4

Header = dict[str, Any]


def send(
    connection: socket.socket,
    header: Header,
    *,
    bodies: Sequence[memoryview] = (),
    descriptors: Sequence[int] = (),
) -> None:
    """Send one message; the receiver gets duplicates of `descriptors`."""
    text = json.dumps({**header, "bodies": [len(body) for body in bodies]}).encode()
    frame = _LENGTH.pack(len(text)) + text
    # Descriptors travel with the first byte, so what a short write leaves can follow without them.
    sent = socket.send_fds(connection, [frame], list(descriptors))
    connection.sendall(frame[sent:])
    for body in bodies:
        connection.sendall(body)


def receive(connection: socket.socket) -> tuple[Header, list[bytearray], list[int]]:
    """Receive one message: its header, its bodies and its descriptors (close-on-exec).

    Raises:
        EOFError: The other side is gone.
        ValueError: What came is no message of ours.
    """
    size = array.array("i").itemsize
    length, ancillary, flags, _ = connection.recvmsg(
        _LENGTH.size, socket.CMSG_SPACE(_MOST_DESCRIPTORS * size), socket.MSG_CMSG_CLOEXEC
    )
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(data[: len(data) - len(data) % size])
    try:
        if flags & socket.MSG_CTRUNC:
            raise ValueError("descriptors were lost on the way")
        length += _exactly(connection, _LENGTH.size - len(length))
        (header_bytes,) = _LENGTH.unpack(length)
        if header_bytes > _MOST_HEADER_BYTES:
            raise ValueError(f"a header of {header_bytes} bytes")
        header: Header = json.loads(_exactly(connection, header_bytes))
        bodies = [_exactly(connection, count) for count in header.pop("bodies")]
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return header, bodies, list(descriptors)


def _exactly(connection: socket.socket, count: int) -> bytearray:
    data = bytearray(count)
    view = memoryview(data)
    while view:
        received = connection.recv_into(view)
        if not received:
            raise EOFError("the other side closed the connection")
        view = view[received:]
    return data
