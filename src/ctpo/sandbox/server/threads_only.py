"""`multiprocessing` where there are threads and no processes.

Its locks are the kernel's, of a file system that programs do not see, so even
`multiprocessing.dummy` would fail, which has threads only. Within one process the
locks of `threading` are the same.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

_CONTEXT = "multiprocessing.context"
_LOCKS = ("Lock", "RLock", "Condition", "Semaphore", "BoundedSemaphore", "Event", "Barrier")
_MESSAGE = (
    "processes are not available here, threads are: use multiprocessing.dummy or "
    "concurrent.futures.ThreadPoolExecutor"
)


def prepare() -> None:
    """Change `multiprocessing` now, or as soon as the program imports it."""
    if _CONTEXT in sys.modules:
        _change(sys.modules[_CONTEXT])
    else:
        sys.meta_path.insert(0, _Finder)


class _Finder:
    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _CONTEXT:
            return None
        sys.meta_path.remove(cls)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            _change(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _change(context: ModuleType) -> None:
    for name in _LOCKS:
        setattr(context.BaseContext, name, staticmethod(getattr(threading, name)))
    context.process.BaseProcess.start = _refuse


def _refuse(*_: Any) -> NoReturn:  # noqa: ANN401 - whatever a program calls it with
    raise OSError(_MESSAGE)
