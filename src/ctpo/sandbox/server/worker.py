"""A slot's jailed process: each program runs in a fork of it, a session in the process itself.

Few functions, close together, and little made anew: each page of memory that a fork is the first
to write to costs two microseconds, and between them they decide how fast the sandbox is. So the
worker is jailed once, and what it forks has only the filter of system calls left to take.
"""

from __future__ import annotations

import array
import contextlib
import gc
import os
import resource
import signal
import socket
import struct
import time
from typing import NoReturn

from ctpo.sandbox import archive
from ctpo.sandbox.execution import cpu_budget_seconds
from ctpo.sandbox.jail import kernel
from ctpo.sandbox.jail.jail import MEMORY_TO_REPORT, Jail, limit
from ctpo.sandbox.server.program import Interpreter, seed_all

# What a fork server sends: time-out, address space or 0 to leave it as it is, seed, kind, echo,
# whether descriptors of standard input and of an archive of files follow those of the source and
# the two outputs.
JOB = struct.Struct("=dQIBBBB")
PROGRAM, CALL, REUSED = range(3)
_KIND = struct.calcsize("=dQI")
# What it gets: first the pid as /proc has it, or an error; for a program its pid and when it began,
# or an error; after a call exit code and whether memory ran out.
READY = struct.Struct("=I")
STARTED = struct.Struct("=Id")
CALLED = struct.Struct("=BB")

_SEED = 0
_RIGHTS = socket.CMSG_SPACE(5 * array.array("i").itemsize)


class Worker:
    """What such a process is to be, worked out before it is forked."""

    def __init__(self, jail: Jail, proc: int) -> None:
        self._jail = jail
        self._proc = proc
        self._server_pid = os.getpid()
        self._interpreter = Interpreter()
        self._sibling = kernel.Sibling()
        self._filtered = False
        self._link = -1
        # Asked once, so that programs need not touch what it takes to answer.
        self._alone = jail.plan.process_namespace
        self._limits_cpu = "cpu-time" not in jail.plan.without

    def start(self, steps: kernel.Steps, link: socket.socket) -> NoReturn:
        """Be a slot's process; never returns."""
        self._link = link.fileno()
        exit_process = os._exit
        try:
            try:
                pid = int(os.readlink("self", dir_fd=self._proc))
                self._jail.shut(steps)
                self._interpreter.enter()
                seed_all(_SEED)
                gc.freeze()  # else a program's first garbage collection comes early
                self._jail.list_calls()
            except (OSError, ValueError) as error:
                link.send(f"error: {error}".encode())
            else:
                link.send(READY.pack(pid))
                self._serve(link)
        finally:
            exit_process(1)

    def _serve(self, link: socket.socket) -> NoReturn:
        while True:
            data, ancillary, _, _ = link.recvmsg(JOB.size, _RIGHTS)
            if not data:
                os._exit(0)
            given = array.array("i", ancillary[0][2]).tolist()
            if data[_KIND] != PROGRAM:
                self._call(data, given, link)
                continue
            started = time.monotonic()
            try:
                pid = self._sibling.fork()
            except OSError as error:
                link.send(f"error: {error}".encode())
                continue
            if pid == 0:
                self._run_program(data, given)
            for descriptor in given:
                os.close(descriptor)
            link.send(STARTED.pack(pid, started))

    def _run_program(self, data: bytes, given: list[int]) -> NoReturn:
        """Be the process of a program."""
        try:
            if not self._alone:
                # A fork does not inherit it; the fork server may have died before it was set.
                kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() != self._server_pid:
                    os._exit(1)
            text, _ = self._take(data, given)
            os.close(self._link)
            self._filter()
        except BaseException:
            os.kill(os.getpid(), signal.SIGKILL)  # which tells it from anything a program can do
            raise
        self._interpreter.run(text)

    def _call(self, data: bytes, given: list[int], link: socket.socket) -> None:
        """Run a call of a session here, in what earlier ones left."""
        self._filter()
        text, echo = self._take(data, given)
        if data[_KIND] == REUSED:
            self._interpreter = Interpreter()
        exit_code, out_of_memory = self._interpreter.call(text, echo=echo)
        with contextlib.suppress(OSError):  # the program can close it: that ends the session
            link.send(CALLED.pack(exit_code & 0xFF, out_of_memory))

    def _take(self, data: bytes, given: list[int]) -> tuple[str, bool]:
        """Put inputs, outputs and limits where they belong; the source, and whether to echo."""
        timeout, memory, seed, kind, echo, has_stdin, has_files = JOB.unpack(data)
        code, stdout, stderr = given[:3]
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        if has_stdin:
            os.dup2(given[3], 0)
        source = os.pread(code, os.lseek(code, 0, os.SEEK_END), 0)
        if has_files:
            packed = given[-1]
            archive.write(archive.unpack(os.pread(packed, os.fstat(packed).st_size, 0)))
        for descriptor in given:
            os.close(descriptor)
        if seed != _SEED:
            seed_all(seed)
        if self._limits_cpu:
            soft = int(-(-cpu_budget_seconds(timeout) // 1))  # without `math`: two pages
            if kind == PROGRAM:
                limit(resource.RLIMIT_CPU, soft, soft + 1)
            else:  # the next call gets more; the fork server counts there
                limit(resource.RLIMIT_CPU, resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        text = source.decode("utf-8", "surrogatepass")
        if memory:
            limit(resource.RLIMIT_AS, memory, memory + MEMORY_TO_REPORT)
        return text, bool(echo)

    def _filter(self) -> None:
        if not self._filtered:
            self._jail.filter_calls()
        self._filtered = True
