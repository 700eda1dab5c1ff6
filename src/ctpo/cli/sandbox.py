"""`ctpo sandbox`: `serve`, `run`, `check`."""

from __future__ import annotations

import io
import os
import sys
import tokenize
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ctpo.cli.console import fail, print_table, say

app = typer.Typer(
    help="Run untrusted Python: as a server, one file, or a check of this machine.",
    no_args_is_help=True,
)

_Workers = Annotated[int | None, typer.Option(help="Programs at once; by default 2 a processor.")]
_Memory = Annotated[int, typer.Option(help="MiB that a program may add to the interpreter's.")]
_Weak = Annotated[
    bool, typer.Option("--allow-weak", help="Run with limits alone where nothing else is allowed.")
]


def _preloaded(names: str) -> list[str]:
    from importlib.util import find_spec

    if names != "auto":
        return [name for name in names.split(",") if name]
    return [name for name in ("numpy", "mpmath", "sympy") if find_spec(name) is not None]


def _of_this_machine(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


_Preload = Annotated[
    str, typer.Option(help="Modules to import once, by commas; auto: numpy, mpmath, sympy.")
]


@app.command()
def serve(
    socket: Annotated[Path | None, typer.Option(help="Unix socket to listen on.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes any.")
    ] = 8080,
    workers: _Workers = None,
    memory_mb: _Memory = 512,
    preload: _Preload = "auto",
    frontends: Annotated[int, typer.Option(min=1, help="Processes that speak HTTP.")] = 1,
    max_requests: Annotated[
        int, typer.Option(min=1, help="Requests at once; more get 503.")
    ] = 4096,
    max_body_mb: Annotated[int, typer.Option(min=1, help="MiB of a request; more get 413.")] = 8,
    max_held_mb: Annotated[
        int, typer.Option(min=1, help="MiB of all requests that wait or run; more get 503.")
    ] = 256,
    client_timeout: Annotated[
        float,
        typer.Option(min=0.1, help="Seconds for a request's head, its body, and between requests."),
    ] = 30.0,
    max_timeout: Annotated[float, typer.Option(help="Longest run_timeout; more get 422.")] = 120.0,
    allow_open: Annotated[
        bool, typer.Option("--allow-open", help="Serve other machines without a token.")
    ] = False,
    allow_weak: _Weak = False,
) -> None:
    """Serve SandboxFusion's /run_code, with /health and /metrics, until SIGTERM.

    A token that clients must send is taken from the environment: CTPO_SANDBOX_TOKEN.
    """
    from ctpo.sandbox import Sandbox, SandboxUnavailable, arguments
    from ctpo.sandbox.http.serve import Limits, listening
    from ctpo.sandbox.http.serve import serve as serve_http

    token = os.environ.get("CTPO_SANDBOX_TOKEN") or None
    if socket is None and token is None and not _of_this_machine(host) and not allow_open:
        sys.exit(
            f"--host {host} lets other machines run programs here: set CTPO_SANDBOX_TOKEN, or pass "
            "--allow-open"
        )
    path = None if socket is None else str(socket)
    try:
        arguments.seconds(max_timeout, "--max-timeout")
        arguments.seconds(client_timeout, "--client-timeout")
        limits = Limits(
            token=token,
            most_requests=max_requests,
            most_body_bytes=max_body_mb << 20,
            most_held_bytes=max_held_mb << 20,
            most_seconds=max_timeout,
            most_memory_mb=memory_mb,
        )
        with (
            listening(path, host, port) as server,
            Sandbox(
                workers=workers,
                memory_mb=memory_mb,
                preload=_preloaded(preload),
                allow_weak=allow_weak,
            ) as sandbox,
        ):
            say(sandbox.protections)
            name = f"[{host}]" if ":" in host else host
            where = path or f"http://{name}:{server.getsockname()[1]}"
            say(f"{sandbox.workers} workers, listening at {where}")
            sys.stdout.flush()
            serve_http(sandbox, server, limits, frontends=frontends, client_seconds=client_timeout)
    except (OSError, SandboxUnavailable, ValueError) as error:
        raise fail(error) from None


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="Program; - reads standard input.")],
    timeout: Annotated[float, typer.Option(help="Seconds of its own time.")] = 10.0,
    memory_mb: _Memory = 512,
    seed: Annotated[int, typer.Option(help="For random numbers.")] = 0,
    allow_weak: _Weak = False,
) -> None:
    """Run one program, and exit as it does.

    Or with 124 (out of time), 137 (of memory), 153 (too much output), and with 125 where it could
    not be run at all.
    """
    from ctpo.sandbox import Sandbox, SandboxUnavailable

    try:
        source = _source(file)
        with Sandbox(
            workers=1, timeout=timeout, memory_mb=memory_mb, allow_weak=allow_weak
        ) as sandbox:
            stdin = "" if str(file) == "-" or sys.stdin.isatty() else sys.stdin.read()
            execution = sandbox.run(source, stdin=stdin, seed=seed)
    except (OSError, SandboxUnavailable, ValueError) as error:
        fail(error)
        raise typer.Exit(125) from None
    sys.stdout.write(execution.stdout)
    sys.stderr.write(execution.stderr)
    if execution.status in ("success", "error"):
        code = execution.return_code or 0
        raise typer.Exit(code if code >= 0 else 128 - code)
    sys.stderr.write(f"ctpo: {execution.status} {execution.failure or ''}\n")
    raise typer.Exit(
        {"timeout": 124, "memory": 137, "output-limit": 153}.get(execution.status, 125)
    )


def _source(file: Path) -> str:
    """A program as Python reads it: by its byte order mark, or the encoding that it names."""
    written = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(written).readline)
        return io.TextIOWrapper(io.BytesIO(written), encoding).read()
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: {error}") from None


@app.command()
def check(
    without: Annotated[
        str, typer.Option(help="Protections to switch off, by commas, to see what they hold.")
    ] = "",
    allow_weak: _Weak = False,
) -> None:
    """Try the list of attacks on this machine. Exits with 1 if one reached its goal."""
    from ctpo.sandbox import Sandbox, SandboxUnavailable
    from ctpo.sandbox.attacks import Targets, attacks, try_attack

    try:
        with (
            Targets() as targets,
            Sandbox(
                workers=2,
                timeout=1.0,
                memory_mb=256,
                allow_weak=allow_weak,
                without=[name for name in without.split(",") if name],
            ) as sandbox,
        ):
            table = Table("attacks on", "tried", "held", "reached their goal")
            outcomes = [(a, try_attack(a, sandbox, targets)) for a in attacks()]
            for kind in dict.fromkeys(attack.kind for attack in attacks()):
                of_kind = [(a, o) for a, o in outcomes if a.kind == kind]
                reached = [f"{a.name} ({o.reached})" for a, o in of_kind if o.reached]
                reached += [
                    f"{a.name} (the next run was wrong)" for a, o in of_kind if not o.innocent
                ]
                held = len(of_kind) - len(reached)
                table.add_row(kind, str(len(of_kind)), str(held), escape("\n".join(reached)))
            print_table(table)
            say(f"{sandbox.protections.rung}\n{sandbox.protections}")
    except (SandboxUnavailable, ValueError) as error:
        raise fail(error) from None
    failed = sum(bool(o.reached) or not o.innocent for _, o in outcomes)
    say(f"{len(outcomes) - failed} of {len(outcomes)} attacks held")
    if failed:
        raise typer.Exit(1)
