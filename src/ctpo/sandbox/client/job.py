"""A program between the caller and a fork server, and what becomes of its answer."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import time
from collections.abc import Container, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, get_args

from ctpo.sandbox import archive
from ctpo.sandbox.execution import Execution, Status, hard_wall_seconds
from ctpo.sandbox.program import Program

# Beyond the hard bound on a program's wall time: then the fork server itself is stuck.
_GRACE_SECONDS = 30.0
# Outputs and inputs cannot grow, and inputs not change; both can be emptied when a call has ended.
_OUTPUT_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_GROW
_INPUT_SEALS = _OUTPUT_SEALS | fcntl.F_SEAL_WRITE
_STATUSES = get_args(Status)
_MEASURES = ("wall_seconds", "own_seconds", "cpu_seconds", "peak_memory_bytes")
_PAGE = resource.getpagesize()


@dataclass(eq=False)
class Job:
    """A program that was asked for.

    Attributes:
        program: What is to be run.
        timeout: Seconds of its own time.
        memory_bytes: Address space it may add; `None` for as much as the sandbox allows.
        echo: Whether the last expression's value is shown.
        flow: Whose turn it uses up.
        lane: Which kind of fork server it goes to.
        session: The session it is a call of, by number.
        first: Whether it is the first call.
        future: Takes the outcome.
        number: Tells jobs apart.
        submitted: When it was asked for.
        sent: When it was given to a fork server; 0 before that.
        outputs: Descriptors of its two outputs, while it runs.
    """

    program: Program
    timeout: float
    flow: Hashable
    lane: str
    memory_bytes: int | None = None
    echo: bool = False
    session: int | None = None
    first: bool = False
    number: int = 0
    future: Future[Execution] = field(default_factory=Future)
    submitted: float = field(default_factory=time.monotonic)
    sent: float = 0.0
    outputs: tuple[int, ...] = ()
    over: bool = False

    @property
    def deadline(self) -> float:
        """When the fork server should have answered, whatever happened."""
        return self.sent + hard_wall_seconds(self.timeout) + _GRACE_SECONDS

    def message(self, output_bytes: int) -> tuple[dict[str, Any], list[int]]:
        """What a fork server is sent. The caller closes the descriptors that are not `outputs`.

        Raises:
            OSError: There is no memory, or there are no descriptors left.
        """
        program = self.program
        # Of bounded size each, and not part of the message, which has a bound of its own.
        inputs = {"code": _encoded(program.code)}
        if program.stdin or self.session is not None:  # there it is not what an earlier call left
            inputs["stdin"] = _encoded(program.stdin)
        if program.contents:
            inputs["files"] = archive.pack(program.contents)
        if program.collect:
            inputs["collect"] = json.dumps(program.collect).encode()
        given: dict[str, int] = {}
        try:
            given["code"] = _memory(inputs.pop("code"))
            for name in ("stdout", "stderr"):
                given[name] = _output(output_bytes)
            for name, content in inputs.items():
                given[name] = _memory(content)
        except BaseException:
            for descriptor in given.values():
                os.close(descriptor)
            raise
        self.outputs = (given["stdout"], given["stderr"])
        header = {
            "id": self.number,
            "given": list(given),
            "timeout": self.timeout,
            "memory_bytes": self.memory_bytes,
            "seed": program.seed,
            "echo": self.echo,
            "session": self.session,
            "first": self.first,
        }
        return header, list(given.values())

    def finish(
        self, answer: Mapping[str, Any], files: Mapping[str, bytes], output_bytes: int
    ) -> Execution:
        """The outcome, from a fork server's answer and the outputs; closes these.

        Args:
            answer: As the fork server sent it.
            files: Those collected.
            output_bytes: How much of each output is kept.
        """
        fields = dict(answer)
        fields.pop("id")
        self.over = bool(fields.pop("over", False))
        try:
            stdout, more_stdout = _read(self.outputs[0], output_bytes)
            stderr, more_stderr = _read(self.outputs[1], output_bytes)
        finally:
            self.close()
        if fields["status"] != "sandbox-failure" and (more_stdout or more_stderr):
            fields["status"], fields["return_code"] = "output-limit", None
        return Execution(
            stdout=stdout.decode("utf-8", "replace"),
            stderr=stderr.decode("utf-8", "replace"),
            stdout_truncated=more_stdout,
            stderr_truncated=more_stderr,
            queue_seconds=self.sent - self.submitted,
            files=files,
            **fields,
        )

    def failed(self, why: str) -> Execution:
        """The outcome when the sandbox failed; closes the outputs."""
        self.close()
        now = time.monotonic()
        sent = self.sent or now
        return Execution.failed(why, wall_seconds=now - sent, queue_seconds=sent - self.submitted)

    def close(self) -> None:
        """Let go of the outputs."""
        for descriptor in self.outputs:
            if self.session is not None:
                os.ftruncate(descriptor, 0)  # which a session could keep, that of each call
            os.close(descriptor)
        self.outputs = ()


def check_answer(answer: Mapping[str, Any], jobs: Container[int]) -> None:
    """Check that a fork server's answer is one that it may give.

    Args:
        answer: As it came.
        jobs: Numbers of those that the fork server has.

    Raises:
        ValueError: It is none.
    """
    allowed = {"id", "status", "failure", "over"}
    number, status, failure = (answer.get(name) for name in ("id", "status", "failure"))
    good = type(number) is int and number in jobs and status in _STATUSES
    good = good and isinstance(failure, str | None) and type(answer.get("over", False)) is bool
    if "return_code" in answer:
        allowed |= {"return_code", *_MEASURES}
        code = answer["return_code"]
        good = good and (code is None or type(code) is int) and (status != "success" or code == 0)
        good = good and all(_is_measure(answer.get(name)) for name in _MEASURES)
    else:
        good = good and (status == "sandbox-failure" or answer.get("over") is True)
    if not good or not answer.keys() <= allowed:
        raise ValueError(f"no answer of a fork server's: {str(answer)[:200]}")


def _is_measure(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < float("inf")  # type: ignore[operator]


def _encoded(text: str) -> bytes:
    """Text as bytes; a lone surrogate is the program's error, to be met as Python would."""
    return text.encode("utf-8", "surrogatepass")


def _memory(content: bytes) -> int:
    """A file in memory that cannot be changed, but emptied."""
    descriptor = os.memfd_create("ctpo-program", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        written = 0
        while written < len(content):
            written += os.pwrite(descriptor, memoryview(content)[written:], written)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _INPUT_SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _output(limit: int) -> int:
    """A file in memory that cannot grow: room for what is kept, and a page to tell of more."""
    descriptor = os.memfd_create("ctpo-output", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, (limit // _PAGE + 1) * _PAGE)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _OUTPUT_SEALS)
    return descriptor


def _read(descriptor: int, limit: int) -> tuple[bytes, bool]:
    """What was written, as far as it is kept, and whether there was more."""
    # The position is shared with the program, which has ended.
    written = os.lseek(descriptor, 0, os.SEEK_CUR)
    return os.pread(descriptor, min(written, limit), 0), written > limit
