"""Worker processes for comparing formulas: started when first needed, killed when late."""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

# Importing sympy takes half a second; a loaded machine gets two minutes.
START_SECONDS = 120.0


@dataclass(frozen=True)
class Comparison:
    """What a worker found.

    Attributes:
        equal: True or False where shown, None where not.
        reason: Why it could not be shown, or "".
    """

    equal: bool | None
    reason: str = ""


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
        try:
            self._read_line(START_SECONDS)
        except (_Late, _Gone) as error:
            code = self._process.poll()
            self.kill()
            raise RuntimeError(
                f"the grading worker did not start (exit code {code}, its errors are above); "
                "formulas need `pip install ctpo[train]`"
            ) from error

    def compare(self, left: str, right: str, timeout: float) -> Comparison:
        """Asks the worker; raises `_Late` or `_Gone`, after which it must be killed."""
        assert self._process.stdin is not None
        request = json.dumps({"left": left, "right": right, "timeout": timeout})
        try:
            self._process.stdin.write(request.encode() + b"\n")
        except BrokenPipeError as error:
            raise _Gone from error
        reply = json.loads(self._read_line(timeout))
        return Comparison(reply.get("equal"), reply.get("undecided", ""))

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
    """Up to `size` workers shared by any number of threads.

    Args:
        size: Most workers at a time.
    """

    def __init__(self, size: int) -> None:
        self._slots = threading.Semaphore(size)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []

    def compare(self, left: str, right: str, timeout: float) -> Comparison:
        """Compares two formulas in a worker.

        Args:
            left: LaTeX of the value alone.
            right: Same.
            timeout: Seconds the worker may take, its start and the wait for a free one not counted.

        Returns:
            The finding; undecided if the worker was late or died.

        Raises:
            RuntimeError: If no worker can be started.
        """
        with self._slots:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            worker = worker or _Worker()
            keep = False
            try:
                comparison = worker.compare(left, right, timeout)
                keep = True
                return comparison
            except _Late:
                return Comparison(None, f"no verdict within {timeout:g} s")
            except _Gone:
                return Comparison(None, "the grading worker died")
            finally:
                # Also when an exception such as Ctrl-C passes: its reply, still to come, would be
                # taken for the answer to the next question.
                if keep:
                    with self._lock:
                        self._idle.append(worker)
                else:
                    worker.kill()

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
