"""One pool for several processes: a sandbox at one end of a connection, a client at the other."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import itertools
import json
import socket
import struct
from collections.abc import Hashable, Mapping
from typing import Any, Unpack

from ctpo.sandbox.client.fair_queue import path_of
from ctpo.sandbox.execution import Execution
from ctpo.sandbox.program import Options, Program
from ctpo.sandbox.sandbox import Sandbox

_LENGTH = struct.Struct("!I")
_MOST_BYTES = 256 << 20

Message = dict[str, Any]


async def serve_pool(sandbox: Sandbox, connection: socket.socket) -> None:
    """Let another process run programs in a sandbox until it hangs up."""
    reader, writer = await asyncio.open_unix_connection(sock=connection)
    runs: dict[int, asyncio.Task[None]] = {}

    async def answer(number: int, message: Message) -> None:
        try:
            await _answer(sandbox, message, writer)
        finally:
            del runs[number]

    try:
        while True:
            message = await _receive(reader)
            if "cancel" in message:
                if message["cancel"] in runs:
                    runs[message["cancel"]].cancel()
                continue
            number = message["id"]
            runs[number] = asyncio.create_task(answer(number, message))
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client is gone, and nobody waits for what it asked for
    finally:
        for run in list(runs.values()):
            run.cancel()
        writer.close()


async def _answer(sandbox: Sandbox, message: Message, writer: asyncio.StreamWriter) -> None:
    number = message.pop("id")
    if message.pop("statistics", False):
        answer: Message = dict(await sandbox.statistics())
    else:
        try:
            flow = tuple(message.pop("flow"))
            message["files"] = _decoded(message["files"])
            execution = await sandbox.arun(Program(**message), flow=flow)
        except Exception as error:  # whatever it is, somebody waits for an answer
            why = f"{type(error).__name__}: {error}"
            execution = Execution.failed(why, wall_seconds=0.0, queue_seconds=0.0)
        answer = _written(execution, execution.files)
    with contextlib.suppress(ConnectionError):
        _send(writer, {"id": number, "answer": answer})
        await writer.drain()


class RemoteSandbox:
    """The client: runs programs in a pool that another process holds.

    Args:
        connection: To that process, one end of a pair: no file that could be left behind.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._numbers = itertools.count()
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._connecting = asyncio.Lock()

    async def arun(
        self, code: str | Program, *, flow: Hashable = None, **options: Unpack[Options]
    ) -> Execution:
        """As `Sandbox.arun`. A pool that is gone is a `sandbox-failure`."""
        program = Program.of(code, options)
        asked = _written(program, program.contents)
        try:
            answer = await self._ask({**asked, "flow": [str(part) for part in path_of(flow)]})
        except (OSError, asyncio.IncompleteReadError) as error:
            why = f"the pool is gone: {error}"
            return Execution.failed(why, wall_seconds=0.0, queue_seconds=0.0)
        answer["files"] = _decoded(answer["files"])
        return Execution(**answer)

    async def statistics(self) -> Mapping[str, Any]:
        """As `Sandbox.statistics`.

        Raises:
            OSError: The pool is gone.
        """
        return await self._ask({"statistics": True})

    async def close(self) -> None:
        """Hang up."""
        if self._writer is None:
            self._connection.close()
        else:
            self._writer.close()
        if self._reading is not None:
            self._reading.cancel()

    async def _ask(self, message: Message) -> Message:
        async with self._connecting:
            if self._writer is None:
                reader, self._writer = await asyncio.open_unix_connection(sock=self._connection)
                self._reading = asyncio.create_task(self._read(reader, self._writer))
        if self._writer.is_closing():
            raise ConnectionError("it hung up")
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            _send(self._writer, {"id": number, **message})
            return await self._answers[number]
        except asyncio.CancelledError:
            _send(self._writer, {"cancel": number})
            raise
        finally:
            self._answers.pop(number, None)

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                message = await _receive(reader)
                future = self._answers.get(message["id"])
                if future is not None and not future.done():
                    future.set_result(message["answer"])
        except (OSError, asyncio.IncompleteReadError) as error:
            for future in self._answers.values():
                if not future.done():
                    future.set_exception(ConnectionError(str(error)))
        finally:
            writer.close()


def _send(writer: asyncio.StreamWriter, message: Message) -> None:
    # A lone surrogate stays one: JSON escapes it.
    text = json.dumps(message).encode()
    writer.write(_LENGTH.pack(len(text)) + text)


async def _receive(reader: asyncio.StreamReader) -> Message:
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > _MOST_BYTES:
        raise ConnectionError(f"a message of {length} bytes")
    message: Message = json.loads(await reader.readexactly(length))
    return message


def _written(what: Execution | Program, files: Mapping[str, bytes]) -> Message:
    fields = {f.name: getattr(what, f.name) for f in dataclasses.fields(what)}
    encoded = {name: base64.b64encode(content).decode() for name, content in files.items()}
    return {**fields, "files": encoded}


def _decoded(files: Mapping[str, str]) -> dict[str, bytes]:
    return {name: base64.b64decode(content) for name, content in files.items()}
