"""`Sandbox`: hands programs to cells, at most so many at once, in order of arrival."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from ctpo.sandbox import wire
from ctpo.sandbox.execution import Execution
from ctpo.sandbox.protections import LIMITS_ONLY, RUNGS, Protections, SandboxUnavailable
from ctpo.sandbox.server import Server, ServerGone
from ctpo.sandbox.slots import Slot, Slots

_MOST_WORKERS = 256


class Sandbox:
    """Runs untrusted Python programs, each in a fresh confined process. Thread-safe.

    Args:
        workers: How many programs run at once; the number of processors by default.
        timeout: Seconds of a program's own time: wall time less its wait for a processor.
        memory_mb: Address space in MiB that each process of a program may add.
        output_bytes: How much of stdout, and of stderr, is kept; writing more ends the program.
        preload: Modules imported once, of which every program gets its own copy at once.
        allow_weak: Whether to run with limits alone where the machine allows no more.

    Attributes:
        restarts: How often the server process was replaced after it died.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        timeout: float = 3.0,
        memory_mb: int = 512,
        output_bytes: int = 65536,
        preload: Sequence[str] = (),
        allow_weak: bool = False,
    ) -> None:
        if workers is None:
            workers = len(os.sched_getaffinity(0))
        for name, value in (
            ("workers", workers),
            ("memory_mb", memory_mb),
            ("output_bytes", output_bytes),
        ):
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an int, not {type(value).__name__}")
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if workers > _MOST_WORKERS:
            raise ValueError(f"workers must be at most {_MOST_WORKERS}, not {workers}")
        if isinstance(preload, str):
            raise TypeError("preload must be a sequence of module names, not a str")
        for module in preload:
            if not all(part.isidentifier() for part in module.split(".")):
                raise ValueError(f"preload must hold names of modules, not {module!r}")
        self.timeout = _seconds(timeout)
        self.restarts = 0
        self._allow_weak = allow_weak
        self._preload = tuple(preload)
        self._limits = {"memory_bytes": memory_mb << 20, "output_bytes": output_bytes}
        self._slots = Slots(workers)
        self._server_lock = threading.Lock()
        self._server: Server | None = None
        self._protections: Protections | None = None
        self._rung = LIMITS_ONLY
        self._hello: wire.Header = {}
        self._owner = 0
        self._closed = False

    @property
    def protections(self) -> Protections:
        """The protections in force.

        Raises:
            RuntimeError: The sandbox has not been started.
        """
        if self._protections is None:
            raise RuntimeError("the sandbox has not been started: use it in a with statement")
        return self._protections

    def start(self) -> None:
        """Start the server and find the strongest confinement on which a program runs.

        Raises:
            SandboxUnavailable: A module to preload cannot be imported, or the machine allows
                neither namespaces nor a user id of its own and `allow_weak` is false.
            RuntimeError: It has been started before.
        """
        if self._owner:
            raise RuntimeError("a sandbox can be started once only")
        self._owner = os.getpid()
        self._server = Server(self._preload)
        try:
            self._climb()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End every program and process of the sandbox; returns when they are gone.

        Programs in flight end as `sandbox-failure`. In a fork of the owner this does nothing.
        """
        if self._owner != os.getpid():
            return
        self._closed = True
        with self._server_lock:
            server, self._server = self._server, None
            if server is not None:
                server.close()
        self._slots.drop_idle()

    def __enter__(self) -> Self:
        if not self._owner:
            self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def run(self, code: str, *, stdin: str = "", timeout: float | None = None) -> Execution:
        """Run one program; waits for a free worker and for its end.

        Args:
            code: Python source, run as `__main__`.
            stdin: Its standard input.
            timeout: Seconds of its own time; the sandbox's by default.

        Raises:
            RuntimeError: The sandbox is not started, closed, or was inherited through a fork.
            TypeError: An argument has the wrong type.
            ValueError: `timeout` is not a positive finite number.
        """
        self._check_usable()
        seconds = self.timeout if timeout is None else _seconds(timeout)
        program = (_encoded("code", code), _encoded("stdin", stdin))
        return self._run(*program, timeout=seconds, submitted=time.monotonic())

    def run_many(
        self,
        codes: Sequence[str],
        *,
        stdin: str | Sequence[str] = "",
        timeout: float | None = None,
    ) -> list[Execution]:
        """Run programs at once, as far as there are workers; outcomes in the order of `codes`.

        Args:
            codes: Python sources.
            stdin: Standard input of all of them, or of each.
            timeout: Seconds of each program's own time; the sandbox's by default.

        Raises:
            RuntimeError: As in `run`.
            TypeError: As in `run`.
            ValueError: As in `run`, or `stdin` has another length than `codes`.
        """
        self._check_usable()
        seconds = self.timeout if timeout is None else _seconds(timeout)
        if isinstance(codes, str):
            raise TypeError("codes must be a sequence of str, not a str")
        if not codes:
            return []
        inputs = [stdin] * len(codes) if isinstance(stdin, str) else list(stdin)
        if len(inputs) != len(codes):
            raise ValueError(f"stdin has {len(inputs)} entries for {len(codes)} codes")
        programs = [
            (_encoded("codes", code), _encoded("stdin", text))
            for code, text in zip(codes, inputs, strict=True)
        ]
        submitted = time.monotonic()

        def run(program: tuple[bytes, bytes]) -> Execution:
            return self._run(*program, timeout=seconds, submitted=submitted)

        with ThreadPoolExecutor(min(self._slots.count, len(programs))) as threads:
            return list(threads.map(run, programs))

    def _check_usable(self) -> None:
        if not self._owner:
            raise RuntimeError("the sandbox has not been started: use it in a with statement")
        if self._owner != os.getpid():
            raise RuntimeError(
                "the sandbox belongs to the process that started it, not to its fork"
            )
        if self._closed:
            raise RuntimeError("the sandbox is closed")

    def _climb(self) -> None:
        """Find the first rung of the ladder that carries a program."""
        refusals: list[str] = []
        for rung in RUNGS:
            if rung == LIMITS_ONLY and not self._allow_weak:
                raise SandboxUnavailable(
                    "this machine allows no confinement worth the name:\n"
                    + "\n".join(f"  {refusal}" for refusal in refusals)
                    + "\nallow_weak=True runs programs with limits only: they can then read, write"
                    " and reach whatever their caller can"
                )
            self._rung = rung
            trial = self._run(b"", b"", timeout=self.timeout, submitted=time.monotonic())
            if trial.status == "sandbox-failure":
                refusals.append(f"{rung}: {trial.failure}")
                continue
            self._protections = Protections.found(
                self._hello["in_force"], self._hello["missing"], rung, "; ".join(refusals)
            )
            return
        raise SandboxUnavailable("no program could be run:\n" + "\n".join(refusals))

    def _run(self, code: bytes, stdin: bytes, *, timeout: float, submitted: float) -> Execution:
        slot = self._slots.take()
        taken = time.monotonic()
        try:
            if self._closed:
                raise ServerGone("the sandbox was closed")
            if not (slot.usable() and self._server_alive()):
                self._new_cell(slot)
            taken = time.monotonic()
            return slot.execute(code, stdin, timeout=timeout, queue_seconds=taken - submitted)
        except (OSError, EOFError, ValueError, ServerGone, SandboxUnavailable) as error:
            slot.drop()
            why = "the sandbox was closed" if self._closed else f"{type(error).__name__}: {error}"
            now = time.monotonic()
            return Execution.failed(why, wall_seconds=now - taken, queue_seconds=taken - submitted)
        except BaseException:
            slot.drop()  # interrupted: what the cell answers now is nobody's
            raise
        finally:
            if self._closed:
                slot.drop()
            self._slots.give_back(slot)

    def _new_cell(self, slot: Slot) -> None:
        slot.drop()
        with self._server_lock:
            if self._closed:
                raise ServerGone("the sandbox was closed")
            if not self._server_alive():
                dead, self._server = self._server, None
                if dead is not None:
                    dead.close()
                    self.restarts += 1
                self._server = Server(self._preload)
            assert self._server is not None
            request = {"slot": slot.number, "rung": self._rung, **self._limits}
            slot.cell, self._hello = self._server.new_cell(request)
        if self._protections is not None:
            lost = set(self._protections.in_force) - set(self._hello["in_force"])
            if lost:
                raise ServerGone("a new cell lacks: " + "; ".join(sorted(lost)))

    def _server_alive(self) -> bool:
        server = self._server
        return server is not None and server.alive()


def probe() -> Protections:
    """What the sandbox can offer on this machine, found by running one program.

    Raises:
        SandboxUnavailable: No program can be run at all.
    """
    with Sandbox(workers=1, allow_weak=True) as sandbox:
        return sandbox.protections


def _seconds(timeout: float) -> float:
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool):
        raise TypeError(f"timeout must be a number, not {type(timeout).__name__}")
    if not (math.isfinite(timeout) and timeout > 0):
        raise ValueError(f"timeout must be positive and finite, not {timeout}")
    return float(timeout)


def _encoded(name: str, text: str) -> bytes:
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a str, not {type(text).__name__}")
    # A lone surrogate is the program's error, which it is to meet as Python would.
    return text.encode("utf-8", "surrogatepass")
