"""A long-running program as a child: it gets our signals, and its log says why it failed."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from ctpo.training.termination import handled

_POLL = 0.5  # seconds between two calls of `meanwhile`
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG

# Colours, and the `(TaskRunner pid=123) ` that Ray puts before what its workers print.
_DECORATION = re.compile(r"\x1b\[[0-9;]*m|^\([^()]*pid=\d+[^()]*\)\s?")
_ERROR = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Failed|Failure|Unavailable)\b(?!\()"
)
_MOST_LINES = 8


def run_child(
    command: Sequence[str],
    log: Path,
    meanwhile: Callable[[], None],
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run a program to its end.

    What it prints goes to the log alone. An interrupt, a termination or a hang-up of this process
    goes on to it, and then it is waited for; if this process is killed, it is terminated. A signal
    that is ignored, as under nohup, stays so.

    Args:
        command: The program and its arguments.
        log: What it prints is appended here.
        meanwhile: Called twice a second while it runs.
        environment: Variables besides this process's own.

    Returns:
        Its exit code, 128 + n if signal n ended it.

    Raises:
        KeyboardInterrupt: This process was interrupted, and the program has ended.
    """
    # Before it starts: one that came between would end this process and leave the program behind.
    signals = _Signals()
    with handled(_FORWARDED, signals.handle):
        with log.open("ab") as file:
            child = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=os.environ | dict(environment or {}),
                start_new_session=True,  # or the terminal would interrupt it a second time
                preexec_fn=_end_with_parent,
            )
        signals.go_on_to(child)
        try:
            while True:
                try:
                    code = child.wait(_POLL)
                    break
                except subprocess.TimeoutExpired:
                    meanwhile()
        except BaseException:
            # `meanwhile` failed: nobody would wait for the program any more.
            child.terminate()
            child.wait()
            raise
    if signal.SIGINT in signals.received:
        raise KeyboardInterrupt
    return code if code >= 0 else 128 - code


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM)


class _Signals:
    """Those that came, and whom they go on to."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._child: subprocess.Popen[bytes] | None = None

    def handle(self, number: int, _: FrameType | None) -> None:
        self.received.append(number)
        if self._child is not None:
            self._child.send_signal(number)  # which does nothing once it has ended

    def go_on_to(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        for number in tuple(self.received):
            child.send_signal(number)


def reason(log: str) -> str:
    """Return why a program failed: the last error in its log, without the traces around it."""
    lines = [_DECORATION.sub("", _DECORATION.sub("", line)).rstrip() for line in log.splitlines()]
    for number in range(len(lines) - 1, -1, -1):
        if _ERROR.match(lines[number]):
            return "\n".join(_message(lines[number:]))
    said = [line for line in lines if line.strip()]
    return said[-1] if said else "it printed nothing"


def _message(lines: Sequence[str]) -> Iterator[str]:
    """Yield an error's message, which may go on over some lines."""
    yield lines[0]
    for line in lines[1:_MOST_LINES]:
        if not line.strip() or line.startswith(
            ("  File", "Traceback", "Set the environment", "The above")
        ):
            return
        yield line
