"""Inside the program's own process: run it as Python would."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import ast
import atexit
import builtins
import contextlib
import io
import linecache
import os
import random
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, NoReturn, TextIO

from ctpo.sandbox.server import threads_only

if TYPE_CHECKING:  # it imports a third of the library, which every program would carry
    from importlib.abc import Loader

FILENAME = "<program>"
# Ends a process whose program ran out of memory: no exit code, which a program may choose freely.
OUT_OF_MEMORY = signal.SIGRTMAX

_SEEDED = ("numpy.random", "sympy.core.random")


class Interpreter:
    """A `__main__` of its own, and what is needed to run source in it."""

    def __init__(self) -> None:
        self._make_streams()
        self._calls = 0
        self._main = ModuleType("__main__")
        self._main.__dict__.update(__builtins__=builtins, __file__=FILENAME)
        sys.modules["__main__"] = self._main
        sys.argv = [FILENAME]
        sys.dont_write_bytecode = True
        # A handler would make a fork server that is the first process open to the signal.
        self._on_interrupt = signal.default_int_handler

    def enter(self) -> None:
        """Finish what can be done in the program's own process only."""
        sys.path.insert(0, os.getcwd())
        threads_only.prepare()
        # Not the one of `signal`, which looks for enumerations on both ends.
        _signal.signal(2, self._on_interrupt)

    def _make_streams(self) -> None:
        # Lines are written as they end: what a program printed before a time-out is not lost.
        for name, stream in (
            ("stdin", _stream(0, "r", "<stdin>")),
            ("stdout", _stream(1, "w", "<stdout>")),
            ("stderr", _stream(2, "w", "<stderr>", errors="backslashreplace")),
        ):
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)

    def run(self, source: str) -> NoReturn:
        """Run a program and end the process with its exit code."""
        exit_process, kill = os._exit, os.kill  # the program may replace them
        code, out_of_memory = self._execute(source, FILENAME, echo=False)
        code = _finish(code)
        if out_of_memory:
            signal.signal(OUT_OF_MEMORY, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [OUT_OF_MEMORY])
            kill(os.getpid(), OUT_OF_MEMORY)
        exit_process(code)

    def call(self, source: str, *, echo: bool) -> tuple[int, bool]:
        """Run source in what earlier calls left; its exit code, and whether memory ran out.

        Args:
            source: What to run.
            echo: Whether to show the value of the last expression, as a notebook does.
        """
        self._calls += 1
        if self._calls > 1:
            self._new_streams()
        result = self._execute(source, f"<call {self._calls}>", echo=echo)
        _flush()
        return result

    def _new_streams(self) -> None:
        """Standard input has new content, whatever was made of the old one."""
        sys.stdin = sys.__stdin__ = _stream(0, "r", "<stdin>")  # type: ignore[misc,assignment]

    def _execute(self, source: str, filename: str, *, echo: bool) -> tuple[int, bool]:
        names = self._main.__dict__
        try:
            # As linecache reads a file; without a time of change it keeps the entry.
            text = source.replace("\r\n", "\n").replace("\r", "\n") if "\r" in source else source
            lines = [line + "\n" for line in text.split("\n")]
            linecache.cache[filename] = (len(source), None, lines, filename)
            if echo:
                body, last = _split(source, filename)
                exec(body, names)
                if last is not None:
                    sys.displayhook(eval(last, names))
            else:
                exec(compile(source, filename, "exec", dont_inherit=True), names)
        except BaseException as error:
            return _end_of(error, filename), isinstance(error, MemoryError)
        return 0, False


def seed_all(seed: int) -> None:
    """Start random numbers anew: Python's, and those of what is or will be imported."""
    random.seed(seed)
    for name in _SEEDED:
        if name in sys.modules:
            sys.modules[name].seed(seed)
    _SeedOnImport.seed = seed
    if _SeedOnImport not in sys.meta_path:
        sys.meta_path.insert(0, _SeedOnImport)


class _SeedOnImport:
    """Seeds modules that keep random state of their own when they are imported."""

    seed = 0

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _SEEDED:
            return None
        for finder in sys.meta_path:
            spec = None if finder is cls else finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                _seed_after(spec.loader, cls.seed)
                return spec
        return None


def _seed_after(loader: Loader, seed: int) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        module.seed(seed)

    loader.exec_module = exec_module  # type: ignore[method-assign]


def _split(source: str, filename: str) -> tuple[CodeType, CodeType | None]:
    """Code of all but the last expression, and of that."""
    tree = ast.parse(source, filename)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
        expression = ast.Expression(tree.body.pop().value)  # type: ignore[attr-defined]
        last = compile(expression, filename, "eval", dont_inherit=True)
    return compile(tree, filename, "exec", dont_inherit=True), last


def _stream(descriptor: int, mode: str, name: str, errors: str = "surrogateescape") -> TextIO:
    raw = io.FileIO(descriptor, mode, closefd=False)
    raw.name = name
    buffer = io.BufferedReader(raw) if mode == "r" else io.BufferedWriter(raw)
    return io.TextIOWrapper(buffer, encoding="utf-8", errors=errors, line_buffering=mode == "w")


def _end_of(error: BaseException, filename: str) -> int:
    """Report what ended the program as Python does; its exit code."""
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        return (error.code or 0) & 0xFF
    if isinstance(error, MemoryError):
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    if isinstance(error, PermissionError) and (_full(1) or _full(2)):
        return 1  # it wrote more than is kept, which the sandbox reports
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != filename:
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


def _full(descriptor: int) -> bool:
    """Whether an output has been written into its last page, which is there for just that."""
    with contextlib.suppress(OSError):
        size = os.fstat(descriptor).st_size
        return size > 0 and os.lseek(descriptor, 0, os.SEEK_CUR) > size - resource.getpagesize()
    return False


def _finish(code: int) -> int:
    """What the interpreter does at its end, without taking itself apart; the exit code."""
    try:
        if threading.active_count() > 1:
            threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        _flush()
    except BaseException:
        return code or 120  # as Python does when the last flush fails
    return code


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
