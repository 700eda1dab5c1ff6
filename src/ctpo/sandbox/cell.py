"""A cell runs one program after another, each in a fresh child that does not outlive its run.

Where the machine allows it the cell is the first process of its own pid namespace: when it kills
"everyone", that is its programs and nobody else, and when it dies the kernel does the same.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import socket
import struct
import time
from typing import NoReturn

from ctpo.sandbox import jail, kernel, program, wire
from ctpo.sandbox.capture import Capture
from ctpo.sandbox.cleanup import end_program
from ctpo.sandbox.clock import Clock, read
from ctpo.sandbox.execution import Status
from ctpo.sandbox.plan import Plan
from ctpo.sandbox.scratch import Scratch

# Marks that the jail is shut: a byte that begins no error message, and the pid as /proc has it.
_CONFINED = struct.Struct("=cI")
_SHUT = b"\0"
_RLIMITS = 16


class Cell:
    """Serves one connection.

    Args:
        plan: How programs are confined.
        proc: Descriptor of /proc, opened before the view was entered.
        scratch: Where programs may write.
    """

    def __init__(self, plan: Plan, proc: int, scratch: Scratch) -> None:
        self._plan = plan
        self._proc = proc
        self._scratch = scratch
        pages = int(read(proc, "self/statm").split()[0])
        self._address_space = pages * resource.getpagesize() + plan.memory_bytes
        self._limits = _own_limits()

    def serve(self, connection: socket.socket) -> None:
        """Run programs until the connection ends."""
        gc.collect()
        gc.freeze()
        while True:
            try:
                request, _, descriptors = wire.receive(connection)
            except EOFError:
                return
            header, outputs = self._run(float(request["timeout"]), descriptors)
            # A program with the cell's user id may change its limits: the next gets a new cell.
            last = _own_limits() != self._limits
            header["last"] = last
            wire.send(connection, header, bodies=[output.kept for output in outputs])
            if last:
                return
            for output in outputs:
                output.wipe()

    def _run(self, timeout: float, descriptors: list[int]) -> tuple[wire.Header, list[Capture]]:
        """Run one program.

        Args:
            timeout: Seconds of the program's own time.
            descriptors: The program's source, then its standard input if it has one. Closed here.
        """
        self._scratch.create()
        pipes = [os.pipe() for _ in range(3)]  # output, errors, verdict
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            self._become_program(timeout, descriptors, [writing for _, writing in pipes])
        outputs = [Capture(reading, self._plan.output_bytes) for reading, _ in pipes[:2]]
        verdict = pipes[2][0]
        for descriptor in (*descriptors, *(writing for _, writing in pipes)):
            os.close(descriptor)
        confined = os.read(verdict, _CONFINED.size)
        for reading, _ in pipes:
            os.set_blocking(reading, False)
        ended: Status | None = None
        failure = None
        if len(confined) == _CONFINED.size and confined[:1] == _SHUT:
            clock = Clock(self._proc, _CONFINED.unpack(confined)[1], started, timeout)
            ended = _watch(pid, clock, outputs)
        else:
            failure = "the program could not be confined: " + _rest(verdict, confined)
        wall = time.monotonic() - started
        status, usages = end_program(pid, self._plan, self._proc)
        for output in outputs:
            output.drain()
        code = os.waitstatus_to_exitcode(status)
        peak = max(u.ru_maxrss for u in usages) * 1024
        if failure is not None:
            ended = "sandbox-failure"
        elif any(output.exceeded for output in outputs):
            ended = "output-limit"
        elif ended is None:
            ended = self._verdict(code, peak, _rest(verdict, b""))
        os.close(verdict)
        self._scratch.remove()
        header: wire.Header = {
            "status": ended,
            "return_code": code if ended in ("success", "error") else None,
            "wall_seconds": wall,
            "cpu_seconds": sum(u.ru_utime + u.ru_stime for u in usages),
            "peak_memory_bytes": peak,
            "stdout_truncated": outputs[0].exceeded,
            "stderr_truncated": outputs[1].exceeded,
            "failure": failure,
        }
        return header, outputs

    def _become_program(
        self, timeout: float, descriptors: list[int], outputs: list[int]
    ) -> NoReturn:
        """In the child: give up everything, then run the program."""
        exit_process = os._exit  # the program may replace it
        try:
            source, *stdin = descriptors
            for descriptor, standard in zip([*outputs[:2], *stdin], (1, 2, 0), strict=False):
                os.dup2(descriptor, standard)
            verdict = outputs[2]
            try:
                own_pid = int(os.readlink("self", dir_fd=self._proc))
                kernel.close_all_except((0, 1, 2, source, verdict, self._proc))
                jail.confine(self._plan, address_space=self._address_space, timeout=timeout)
                with open(source, "rb") as file:
                    text = file.read().decode("utf-8", "surrogatepass")
                os.close(self._proc)
            except (OSError, ValueError) as error:
                os.write(verdict, str(error).encode())
            else:
                os.write(verdict, _CONFINED.pack(_SHUT, own_pid))
                program.run(text, verdict)
        finally:
            exit_process(1)

    def _verdict(self, code: int, peak: int, verdict: str) -> Status:
        if verdict.encode() == program.OUT_OF_MEMORY:
            return "memory"
        if code == -signal.SIGXCPU:
            return "timeout"
        crashed = code in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGKILL)
        if crashed and peak > 0.9 * self._plan.memory_bytes:
            # Native code takes a refused allocation badly, and the kernel kills when it has none.
            return "memory"
        return "success" if code == 0 else "error"


def _watch(pid: int, clock: Clock, outputs: list[Capture]) -> Status | None:
    """Read the outputs until the program ends (`None`) or has to be ended (why)."""
    by_pipe = {output.pipe: output for output in outputs}
    process = os.pidfd_open(pid)
    poll = select.poll()
    for descriptor in (process, *by_pipe):
        poll.register(descriptor, select.POLLIN)
    try:
        while True:
            left = clock.left_seconds()
            ready = [descriptor for descriptor, _ in poll.poll(left * 1000)]
            for descriptor in ready:
                if descriptor in by_pipe and not by_pipe[descriptor].read():
                    poll.unregister(descriptor)
            if any(output.exceeded for output in outputs):
                return "output-limit"
            # Before the time: a program that ended while this process had to wait was not late.
            if process in ready:
                return None
            if not left:
                return "timeout"
    finally:
        os.close(process)


def _rest(pipe: int, beginning: bytes) -> str:
    """What little else the child wrote into the verdict pipe."""
    with contextlib.suppress(BlockingIOError):
        beginning += os.read(pipe, 4096)
    return beginning.decode(errors="replace")


def _own_limits() -> list[tuple[int, int]]:
    return [resource.getrlimit(kind) for kind in range(_RLIMITS)]
