"""From what a caller asks for to jobs: checks, defaults, and which kind of fork server it needs."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence

from ctpo.sandbox import arguments
from ctpo.sandbox.client.fork_servers import BARE, LOADED
from ctpo.sandbox.client.job import Job

# What else a program may name that brings a preloaded module in.
_BRINGS = {"numpy": ("scipy", "pandas", "matplotlib", "sklearn"), "mpmath": ("sympy",)}


class Intake:
    """Makes jobs.

    Args:
        timeout: Seconds of a program's own time, if it is not said.
        memory_mb: Most MiB of address space that a program may add.
        preload: Modules that are imported before it.
    """

    def __init__(self, timeout: float, memory_mb: int, preload: Sequence[str]) -> None:
        self._timeout = timeout
        self._memory_mb = memory_mb
        self._names = _mentions(preload)

    def job(
        self,
        code: str,
        *,
        stdin: str = "",
        files: Mapping[str, bytes | str] | None = None,
        collect: Sequence[str] = (),
        timeout: float | None = None,
        memory_mb: int | None = None,
        seed: int = 0,
        flow: Hashable = None,
    ) -> Job:
        """One job; arguments and errors are those of `Sandbox.submit`."""
        return Job(
            code=arguments.encoded("code", code),
            stdin=arguments.encoded("stdin", stdin),
            files=arguments.files(files),
            collect=arguments.names(collect),
            timeout=self._timeout if timeout is None else arguments.seconds(timeout),
            memory_bytes=arguments.memory(memory_mb, self._memory_mb),
            seed=arguments.seed(seed),
            flow=flow,
            lane=LOADED if self._names is not None and self._names.search(code) else BARE,
        )

    def jobs(
        self,
        codes: Sequence[str],
        *,
        stdin: str | Sequence[str],
        timeout: float | None,
        seed: int,
    ) -> list[Job]:
        """Several of one flow; arguments and errors are those of `Sandbox.run_many`."""
        if isinstance(codes, str):
            raise TypeError("codes must be a sequence of str, not a str")
        inputs = [stdin] * len(codes) if isinstance(stdin, str) else list(stdin)
        if len(inputs) != len(codes):
            raise ValueError(f"stdin has {len(inputs)} entries for {len(codes)} codes")
        for code in codes:
            if not isinstance(code, str):
                raise TypeError(f"codes must hold str, not {type(code).__name__}")
        flow = object()
        return [
            self.job(code, stdin=text, timeout=timeout, seed=seed, flow=flow)
            for code, text in zip(codes, inputs, strict=True)
        ]


def _mentions(preload: Sequence[str]) -> re.Pattern[str] | None:
    """Matches programs that profit from the preloaded modules; the others start faster bare."""
    if not preload:
        return None
    roots = {name.split(".")[0] for name in preload}
    names = roots | {more for root in roots for more in _BRINGS.get(root, ())}
    return re.compile(r"\b(?:" + "|".join(map(re.escape, sorted(names))) + r")\b")
