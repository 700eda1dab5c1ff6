"""The web application: limits at the door, then the sandbox."""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import time
from collections.abc import Hashable, Mapping
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from ctpo.sandbox import arguments
from ctpo.sandbox.execution import Execution
from ctpo.sandbox.http import metrics, schema
from ctpo.sandbox.http.shares import Share, Shares
from ctpo.sandbox.program import Program

_JSON = "application/json"
_MOST_DETAILS = 20
_CLIENT = "x-ctpo-client"
_LATER = {"retry-after": "1"}
_HEALTH_SECONDS = 2.0
_ALIVE = Program("print(6 * 7)", timeout=10.0)


class Runner(Protocol):
    """What the application needs of a sandbox, here or in another process."""

    async def arun(self, code: Program, /, *, flow: Hashable = None) -> Execution:
        """Run a program."""
        ...

    async def statistics(self) -> Mapping[str, Any]:
        """What `Sandbox.statistics` says."""
        ...


def create_app(
    runner: Runner,
    *,
    token: str | None = None,
    most_requests: int = 4096,
    most_body_bytes: int = 8 << 20,
    most_held_bytes: int = 256 << 20,
    most_seconds: float = 120.0,
    most_memory_mb: int = 512,
) -> FastAPI:
    """The application.

    Args:
        runner: What runs programs.
        token: What clients must send as `Authorization: Bearer …`, if anything; several, by
            commas, are several clients.
        most_requests: Runs at once, waiting ones included, of which each client has a share
            (`Shares`); beyond that the answer is 503.
        most_body_bytes: Size of a request; beyond that the answer is 413.
        most_held_bytes: Size of all requests that are being read, wait or run, with shares alike;
            beyond that the answer is 503.
        most_seconds: Longest `run_timeout`; beyond that the answer is 422.
        most_memory_mb: The sandbox's `memory_mb`, which caps what is asked for.

    Raises:
        TypeError: As `check_limits`.
        ValueError: As `check_limits`.
    """
    check_limits(most_requests, most_body_bytes, most_held_bytes, most_seconds, most_memory_mb)
    app = FastAPI(title="ctpo sandbox", docs_url=None, redoc_url=None, openapi_url=None)
    requests, held = Shares(most_requests), Shares(most_held_bytes)
    checking, checked, healthy = asyncio.Lock(), -math.inf, Response()
    # Clients differ in how they encode what is not ASCII.
    wanted = [
        f"Bearer {each}".encode(code, "replace")
        for each in (token or "").split(",")
        for code in ("utf-8", "latin-1")
    ]

    def admitted(request: Request) -> bool:
        given = request.headers.get("authorization", "").encode("latin-1")
        return token is None or any([secrets.compare_digest(given, each) for each in wanted])

    async def run_code(request: Request) -> Response:
        if not admitted(request):
            return _refusal(401, "a token is needed: Authorization: Bearer <token>")
        client = _client(request)
        with requests.holding(client) as one, held.holding(client) as bytes_held:
            if not one.take(1):
                return _refusal(503, "too many requests at once", _LATER)
            return await answer(request, client, bytes_held)

    # Not `app.post`: what FastAPI looks up for arguments takes as long as half the rest.
    app.add_route("/run_code", run_code, methods=["POST"])

    async def answer(request: Request, client: tuple[str, ...], share: Share) -> Response:
        try:
            body = await _body(request, most_body_bytes, share)
            if isinstance(body, Response):
                return body
            try:
                asked = schema.RunCodeRequest.model_validate_json(body)
                program = asked.program(most_memory_mb)
                if asked.run_timeout > most_seconds:
                    raise ValueError(f"run_timeout must be at most {most_seconds}")
            except ValidationError as error:
                # Without the input, which may not even be text.
                details = error.errors(
                    include_url=False, include_context=False, include_input=False
                )
                return _refusal(422, details[:_MOST_DETAILS])
            except ValueError as error:
                return _refusal(422, str(error))
            execution = await _unless_gone(request, runner.arun(program, flow=client))
            return _json(schema.response(execution))
        except ClientDisconnect:
            return _refusal(400, "the client hung up")  # which nobody will read

    @app.get("/health")
    async def health(request: Request) -> Response:
        nonlocal checked, healthy
        async with checking:  # whoever asks: one program in a while, and one at once
            if time.monotonic() - checked > _HEALTH_SECONDS:
                healthy = await check()
                checked = time.monotonic()
        return healthy

    async def check() -> Response:
        execution = await runner.arun(_ALIVE, flow="health")
        if execution.stdout != "42\n":
            return _refusal(503, f"print(6 * 7) gave {execution.status}: {execution.failure}")
        statistics = await runner.statistics()
        return _json({"status": "ok", "protections": statistics["protections"]})

    @app.get("/metrics")
    async def show_metrics(request: Request) -> Response:
        if not admitted(request):
            return _refusal(401, "a token is needed: Authorization: Bearer <token>")
        text = metrics.render(await runner.statistics())
        return Response(text, media_type="text/plain; version=0.0.4")

    return app


def check_limits(
    most_requests: int,
    most_body_bytes: int,
    most_held_bytes: int,
    most_seconds: float,
    most_memory_mb: int,
) -> None:
    """Refuse limits that limit nothing, or let nothing in; see `create_app`.

    Raises:
        TypeError: One is of another kind.
        ValueError: One is out of range, or one request can be larger than what a client may hold.
    """
    arguments.check_count("most_requests", most_requests)
    arguments.check_count("most_body_bytes", most_body_bytes)
    arguments.check_count("most_held_bytes", most_held_bytes)
    arguments.seconds(most_seconds, "most_seconds")
    arguments.check_count("most_memory_mb", most_memory_mb)
    if most_held_bytes < 2 * most_body_bytes:
        raise ValueError(
            f"requests may hold {most_held_bytes} bytes together, and one of them have "
            f"{most_body_bytes}: allow at least twice that, of which one client gets half"
        )


def _client(request: Request) -> tuple[str, ...]:
    """Return who asks: an address, and there a token and a name that a client gives itself."""
    name = request.headers.get(_CLIENT) or request.headers.get("user-agent", "")
    host = request.client.host if request.client else ""
    return host, request.headers.get("authorization", ""), name


async def _body(request: Request, most_bytes: int, share: Share) -> bytes | Response:
    """A request's body, or the answer where it is too long or there is no room for it now."""
    too_long = _refusal(413, f"a request may have {most_bytes} bytes")
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > most_bytes:
        return too_long
    chunks, size = [], 0
    async for chunk in request.stream():
        chunks.append(chunk)
        size += len(chunk)
        if size > most_bytes:
            return too_long
        if not share.take(len(chunk)):
            return _refusal(503, "too many bytes of requests at once", _LATER)
    return b"".join(chunks)


async def _unless_gone(request: Request, running: Any) -> Execution:  # noqa: ANN401 (a coroutine)
    """Wait for a run; end it when the client hangs up."""
    run = asyncio.ensure_future(running)
    gone = asyncio.ensure_future(request.receive())  # after the body: a disconnect
    try:
        await asyncio.wait((run, gone), return_when=asyncio.FIRST_COMPLETED)
        if not run.done():
            run.cancel()
            return Execution.failed("the client hung up", wall_seconds=0.0, queue_seconds=0.0)
        execution: Execution = run.result()
        return execution
    finally:
        run.cancel()
        gone.cancel()


def _json(content: Mapping[str, Any]) -> Response:
    return Response(json.dumps(content, ensure_ascii=False).encode(), media_type=_JSON)


def _refusal(status: int, message: object, headers: dict[str, str] | None = None) -> Response:
    content = json.dumps({"detail": message}).encode()
    return Response(content, status_code=status, headers=headers, media_type=_JSON)
