"""Listen, run the application until told to stop, then finish what was begun."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NoReturn

import uvicorn
from fastapi import FastAPI

from ctpo.sandbox.http.app import check_limits, create_app
from ctpo.sandbox.http.connections import most_requests, protocol
from ctpo.sandbox.http.remote import RemoteSandbox, serve_pool
from ctpo.sandbox.jail import kernel
from ctpo.sandbox.protections import SandboxUnavailable
from ctpo.sandbox.sandbox import Sandbox

_BACKLOG = 4096
_RESTART_SECONDS = 0.5
# More ends than these of each front end, within so long, and it is not bad luck.
_MOST_EARLY_ENDS, _SETTLED_SECONDS = 10, 60.0
_SWITCH_SECONDS = 0.0002


@dataclass(frozen=True)
class Limits:
    """What the server lets in; see `app.create_app`."""

    token: str | None = None
    most_requests: int = 4096
    most_body_bytes: int = 8 << 20
    most_held_bytes: int = 256 << 20
    most_seconds: float = 120.0
    most_memory_mb: int = 512

    def __post_init__(self) -> None:
        check_limits(**{k: v for k, v in asdict(self).items() if k != "token"})


@contextlib.contextmanager
def listening(path: str | None, host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket, of a path if given, else of an address.

    Args:
        path: Of a Unix socket; what is left of an earlier server there is replaced.
        host: Address to listen on.
        port: 0 takes any.

    Raises:
        OSError: The address is taken or none of this machine's, or something else than a socket
            lies at the path, or it cannot be made there; names it.
    """
    if path is None:
        # Set explicitly: a server that was just stopped may be started again.
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            server = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"{host}:{port}") from None
        with server:
            yield server
        return
    if Path(path).is_socket():
        with socket.socket(socket.AF_UNIX) as trial:
            if trial.connect_ex(path) == 0:
                raise OSError(f"another server listens at {path}")
        os.unlink(path)
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, "there is something else than a socket", path)
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.bind(path)
        except OSError as error:  # which says nothing else where the path is too long
            raise OSError(error.errno, error.strerror or str(error), path) from None
        os.chmod(path, 0o600)
        server.listen(_BACKLOG)
        try:
            yield server
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def serve(
    sandbox: Sandbox,
    server: socket.socket,
    limits: Limits,
    *,
    frontends: int = 1,
    client_seconds: float = 30.0,
    grace_seconds: float = 30.0,
) -> None:
    """Answer requests until SIGTERM or SIGINT, then those that were begun.

    Args:
        sandbox: A started one.
        server: Listening.
        limits: What to let in.
        frontends: Processes that speak HTTP. One is this one; more share its sandbox.
        client_seconds: How long a client may take to say or to read something; see `protocol`.
        grace_seconds: How long to wait for requests that were begun.

    Raises:
        SandboxUnavailable: The processes that speak HTTP do not start.
    """
    # uvicorn raises the signal again when it is done; this makes of it an orderly end.
    signal.signal(signal.SIGTERM, _exit)
    if frontends == 1:
        most = most_requests(limits.most_requests)
        app = create_app(sandbox, **asdict(replace(limits, most_requests=most)))
        _run(app, server, client_seconds, grace_seconds)
    else:
        asyncio.run(_supervise(sandbox, server, limits, frontends, client_seconds, grace_seconds))


def _exit(number: int, frame: object) -> NoReturn:
    raise SystemExit(0)


def _run(app: FastAPI, server: socket.socket, client_seconds: float, grace_seconds: float) -> None:
    # The thread that reads the sandbox's answers must not wait 5 ms for the one that speaks HTTP.
    sys.setswitchinterval(_SWITCH_SECONDS)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        backlog=_BACKLOG,
        http=protocol(client_seconds),
        timeout_keep_alive=max(1, round(client_seconds)),
        timeout_graceful_shutdown=max(1, round(grace_seconds)),
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run(sockets=[server])


async def _supervise(
    sandbox: Sandbox,
    server: socket.socket,
    limits: Limits,
    frontends: int,
    client_seconds: float,
    grace_seconds: float,
) -> None:
    """Hold the pool, and keep front ends running."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    environment = os.environ | {"CTPO_SANDBOX_TOKEN": limits.token or ""}
    numbers = [str(v) for k, v in asdict(limits).items() if k != "token"]
    source = str(Path(__file__).resolve().parents[3])
    pools: set[asyncio.Task[None]] = set()

    def start() -> subprocess.Popen[bytes]:
        ours, theirs = socket.socketpair()
        with theirs:
            passed = [theirs.fileno(), server.fileno()]
            arguments = [os.getpid(), *passed, client_seconds, grace_seconds]
            process = subprocess.Popen(
                # -P: no module of the directory that the server was started in.
                [sys.executable, "-P", "-c", _FRONTEND, source, *map(str, arguments), *numbers],
                pass_fds=passed,
                env=environment,
            )
        pool = asyncio.create_task(serve_pool(sandbox, ours))
        pools.add(pool)
        pool.add_done_callback(pools.discard)
        pool.add_done_callback(lambda _: process.terminate())  # it can do nothing any more
        return process

    processes = [start() for _ in range(frontends)]
    ended_early, since = 0, loop.time()
    while not stop.is_set():
        if loop.time() - since > _SETTLED_SECONDS:
            ended_early, since = 0, loop.time()
        ended_early += sum(process.poll() is not None for process in processes)
        if ended_early > _MOST_EARLY_ENDS * frontends:
            raise SandboxUnavailable(
                "the processes that speak HTTP end as soon as they start; why is said above"
            )
        processes = [p if p.poll() is None else start() for p in processes]
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), _RESTART_SECONDS)
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            await asyncio.to_thread(process.wait, grace_seconds + 5.0)
        except subprocess.TimeoutExpired:
            process.kill()


_FRONTEND = """
import sys
sys.path.insert(0, sys.argv[1])
from ctpo.sandbox.http.serve import frontend
frontend(*sys.argv[2:])
"""


def frontend(
    parent: str,
    pool: str,
    descriptor: str,
    client: str,
    grace: str,
    requests: str,
    body_bytes: str,
    held_bytes: str,
    seconds: str,
    memory: str,
) -> None:
    """Be one of several processes that speak HTTP.

    Args:
        parent: The process that holds the pool, without which this one ends.
        pool: Descriptor of the connection to it.
        descriptor: Of the listening socket.
        client: As `serve`'s `client_seconds`.
        grace: Seconds to wait at the end.
        requests: As `Limits.most_requests`; each front end counts its own.
        body_bytes: As `Limits.most_body_bytes`.
        held_bytes: As `Limits.most_held_bytes`; each front end counts its own.
        seconds: As `Limits.most_seconds`.
        memory: As `Limits.most_memory_mb`.
    """
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        return
    signal.signal(signal.SIGTERM, _exit)
    app = create_app(
        RemoteSandbox(socket.socket(fileno=int(pool))),
        token=os.environ.pop("CTPO_SANDBOX_TOKEN") or None,
        most_requests=most_requests(int(requests)),
        most_body_bytes=int(body_bytes),
        most_held_bytes=int(held_bytes),
        most_seconds=float(seconds),
        most_memory_mb=int(memory),
    )
    _run(app, socket.socket(fileno=int(descriptor)), float(client), float(grace))
