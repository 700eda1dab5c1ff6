"""Inside the program's own process: run it as Python would and end the process."""

from __future__ import annotations

import atexit
import builtins
import io
import linecache
import os
import random
import resource
import signal
import sys
import threading
import traceback
from types import ModuleType
from typing import NoReturn, TextIO

FILENAME = "<program>"
# Written to the verdict descriptor when a MemoryError ended the program.
OUT_OF_MEMORY = b"M"
SEED = 0


def run(source: str, verdict: int) -> NoReturn:
    """Run `source` as `__main__` and end the process with its exit code.

    Args:
        source: The program.
        verdict: Descriptor that takes `OUT_OF_MEMORY`.
    """
    exit_process = os._exit  # the program may replace it
    main = _prepare(source)
    code = 0
    try:
        exec(compile(source, FILENAME, "exec", dont_inherit=True), main.__dict__)
    except BaseException as error:
        code = _end_of(error, verdict)
    exit_process(_finish(code))


def _prepare(source: str) -> ModuleType:
    # Lines are written as they end: what a program printed before a time-out is not lost.
    for name, stream in (
        ("stdin", _stream(0, "r", "<stdin>")),
        ("stdout", _stream(1, "w", "<stdout>")),
        ("stderr", _stream(2, "w", "<stderr>", errors="backslashreplace")),
    ):
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.argv = [FILENAME]
    sys.path.insert(0, os.getcwd())
    sys.dont_write_bytecode = True
    # Here and not before the fork, after which Python seeds it anew.
    random.seed(SEED)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # As linecache reads a file; without a time of change it keeps the entry.
    lines = io.StringIO(source + "\n", newline=None).readlines()
    linecache.cache[FILENAME] = (len(source), None, lines, FILENAME)
    main = ModuleType("__main__")
    main.__dict__.update(__builtins__=builtins, __file__=FILENAME)
    sys.modules["__main__"] = main
    return main


def _stream(descriptor: int, mode: str, name: str, errors: str = "surrogateescape") -> TextIO:
    raw = io.FileIO(descriptor, mode, closefd=False)
    raw.name = name
    buffer = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding="utf-8", errors=errors, line_buffering=mode == "w")


def _end_of(error: BaseException, verdict: int) -> int:
    """Report what ended the program as Python does; its exit code."""
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        return (error.code or 0) & 0xFF
    if isinstance(error, MemoryError):
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        _note_memory(verdict)
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != FILENAME:
        trace = trace.tb_next
    try:
        if isinstance(error, SystemExit):
            print(error.code, file=sys.stderr)
        elif sys.excepthook is not sys.__excepthook__:
            sys.excepthook(type(error), error, trace)
        else:
            traceback.print_exception(type(error), error, trace)
    except BaseException as failure:
        # No memory, a closed stderr, a broken hook: what is left is the name.
        try:
            os.write(
                2, f"{type(error).__name__} ({type(failure).__name__} in its report)\n".encode()
            )
        except OSError:
            return 1
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def _note_memory(verdict: int) -> None:
    try:
        os.write(verdict, OUT_OF_MEMORY)
    except OSError:
        # The program closed or replaced the descriptor: its end counts as an error of its own.
        return


def _finish(code: int) -> int:
    """What the interpreter does at its end, without taking itself apart; the exit code."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except BaseException:
        return code or 120  # as Python does when the last flush fails
    return code
