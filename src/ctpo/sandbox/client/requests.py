"""From what a caller asks for to jobs: checks, defaults, and which kind of fork server it needs."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

from ctpo.sandbox.client.fork_servers import BARE, LOADED
from ctpo.sandbox.client.job import Job
from ctpo.sandbox.program import Program

# What else a program may name that brings a preloaded module in.
_BRINGS = {"numpy": ("scipy", "pandas", "matplotlib", "sklearn"), "mpmath": ("sympy",)}


class Requests:
    """Makes jobs of programs.

    Args:
        timeout: Seconds of a program's own time, if it is not said.
        memory_mb: Most MiB of address space that a program may add.
        preload: Modules that are imported before it.
    """

    def __init__(self, timeout: float, memory_mb: int, preload: Sequence[str]) -> None:
        self._timeout = timeout
        self._memory_mb = memory_mb
        self._names = _mentions(preload)

    def job(self, program: Program, flow: Hashable) -> Job:
        """One job.

        Raises:
            ValueError: The program is to have more memory than the sandbox gives.
        """
        memory = program.memory_mb
        if memory is not None and memory > self._memory_mb:
            raise ValueError(f"memory_mb must be at most the sandbox's {self._memory_mb}: {memory}")
        return Job(
            program,
            timeout=float(self._timeout if program.timeout is None else program.timeout),
            memory_bytes=None if memory is None else memory << 20,
            flow=flow,
            lane=LOADED if self._names is not None and self._names.search(program.code) else BARE,
        )

    def jobs(
        self,
        codes: Sequence[str | Program],
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
            if not isinstance(code, str | Program):
                raise TypeError(f"codes must hold str or Program, not {type(code).__name__}")
        flow = object()
        programs = [
            code
            if isinstance(code, Program)
            else Program(code, stdin=text, timeout=timeout, seed=seed)
            for code, text in zip(codes, inputs, strict=True)
        ]
        return [self.job(program, flow) for program in programs]


def _mentions(preload: Sequence[str]) -> re.Pattern[str] | None:
    """Matches programs that profit from the preloaded modules; the others start faster bare."""
    if not preload:
        return None
    roots = {name.split(".")[0] for name in preload}
    names = roots | {more for root in roots for more in _BRINGS.get(root, ())}
    return re.compile(r"\b(?:" + "|".join(map(re.escape, sorted(names))) + r")\b")
