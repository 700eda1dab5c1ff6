"""Worker processes for comparing formulas: started when first needed, killed when late."""

from __future__ import annotations

import atexit
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Importing sympy takes half a second; a loaded machine gets two minutes.
START_SECONDS = 120.0
# By the wall. The limit that usually ends a comparison is one of processor time.
HARD_SECONDS = 60.0
# sympy keeps what it has seen. A worker is replaced before that fills the memory.
MAX_CALLS = 10_000
MAX_BYTES = 512 * 1024**2
# If no worker starts, nobody waits for the next attempt before this.
RETRY_SECONDS = 60.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """What a worker found.

    Attributes:
        equal: True or False where shown, None where not.
        reason: The grounds, or why it could not be shown.
    """

    equal: bool | None
    reason: str


class _Late(Exception):
    """No line arrived in time."""


class _Gone(Exception):
    """The worker ended."""


class _Worker:
    """One process and the pipe to it. Used by one thread at a time."""

    def __init__(self) -> None:
        root = str(Path(__file__).parents[2])  # where `import ctpo` finds this package
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            # -P: a file sympy.py in the working directory is not the library.
            [sys.executable, "-P", "-m", "ctpo.grading.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is the parent's to handle
        )
        self._buffer = b""
        self._calls = self._bytes = 0
        try:
            self._read_line(START_SECONDS)
        except (_Late, _Gone) as error:
            code = self._process.poll()
            self.kill()
            raise RuntimeError(
                f"the grading worker did not start (exit code {code}, its errors are above); "
                "formulas need `pip install 'ctpo[grading]'`"
            ) from error

    @property
    def worn(self) -> bool:
        """Whether it is time for another one."""
        return self._calls >= MAX_CALLS or self._bytes > MAX_BYTES

    def compare(self, request: Mapping[str, Any], hard_timeout: float) -> Comparison:
        """Asks the worker; raises `_Late` or `_Gone`, after which it must be killed."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError as error:
            raise _Gone from error
        reply = json.loads(self._read_line(hard_timeout))
        self._calls += 1
        self._bytes = reply["memory"]
        return Comparison(reply["equal"], reply["reason"])

    def kill(self) -> int:
        """Ends the process, waits for it and returns its exit code."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        return self._process.wait()

    def disown(self) -> None:
        """In a forked child: lets go of the parent's process without touching it."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.returncode = 0  # or Popen complains that it still runs

    def _read_line(self, timeout: float) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        poll = select.poll()  # select() fails on descriptors above 1023
        poll.register(descriptor, select.POLLIN)
        deadline = time.monotonic() + timeout
        while b"\n" not in self._buffer:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise _Late
            chunk = os.read(descriptor, 65536)
            if not chunk:
                raise _Gone
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


class Pool:
    """Up to `size` workers shared by any number of threads."""

    def __init__(self, size: int) -> None:
        self._slots = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._failure: tuple[float, str] | None = None

    def compare(
        self,
        answer: str,
        gold: str,
        timeout: float,
        hard_timeout: float = HARD_SECONDS,
    ) -> Comparison:
        """Compares an answer with the gold answer in a worker.

        Args:
            answer: What stands in the box.
            gold: The right answer.
            timeout: Processor seconds the worker may take, its start not counted.
            hard_timeout: Seconds by the clock after which it is killed in any case.

        Returns:
            The finding; undecided if the worker was late or died, or none could be started.
        """
        request = {
            "answer": answer,
            "gold": gold,
            "timeout": timeout,
            "hard_timeout": hard_timeout,
        }
        with self._slots:
            try:
                worker = self._take()
            except RuntimeError as error:
                return Comparison(None, str(error))
            keep = False
            try:
                comparison = worker.compare(request, hard_timeout)
                keep = not worker.worn
                return comparison
            except _Late:
                return Comparison(None, f"no verdict within {hard_timeout:g} s by the clock")
            except _Gone:
                if worker.kill() == -signal.SIGPROF:
                    return Comparison(None, f"no verdict within {timeout:g} s of processor time")
                return Comparison(None, "the grading worker died")
            finally:
                # Also when an exception such as Ctrl-C passes: its reply, still to come, would be
                # taken for the answer to the next question.
                if keep:
                    with self._lock:
                        self._idle.append(worker)
                else:
                    worker.kill()

    def _take(self) -> _Worker:
        """Returns a worker; raises `RuntimeError` if none can be started, or could be just now."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
            failure = self._failure
        if failure and time.monotonic() < failure[0] + RETRY_SECONDS:
            raise RuntimeError(failure[1])
        try:
            worker = _Worker()
        except (RuntimeError, OSError) as error:
            logger.error("formulas cannot be graded: %s", error)
            self._failure = (time.monotonic(), str(error))
            raise RuntimeError(str(error)) from error
        self._failure = None
        return worker

    def close(self) -> None:
        """Ends the idle workers. The pool can be used again."""
        with self._lock:
            workers, self._idle = self._idle, []
        for worker in workers:
            worker.kill()

    def disown(self) -> None:
        """In a forked child: drops the parent's workers. The pool is not to be used again."""
        # Without the lock, which a thread that was not forked may have held.
        for worker in self._idle:
            worker.disown()


def _new_pool() -> Pool:
    return Pool(max(1, min(8, (os.cpu_count() or 2) // 2)))


_shared = _new_pool()


def shared_pool() -> Pool:
    """The process's own pool, closed at exit."""
    return _shared


def _forget() -> None:
    """In a forked child: the parent's workers answer the parent."""
    global _shared
    _shared.disown()
    _shared = _new_pool()


atexit.register(lambda: _shared.close())
os.register_at_fork(after_in_child=_forget)
