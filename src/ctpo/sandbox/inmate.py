"""The child of a fork server: it shuts its jail, waits for one program, runs it and ends.

Few functions, close together, and little made anew: each page of memory that a child is the first
to write to costs two microseconds, and between them they decide how fast the sandbox is.
"""

from __future__ import annotations

import array
import contextlib
import math
import os
import resource
import socket
import struct
from typing import NoReturn

from ctpo.sandbox import archive
from ctpo.sandbox.execution import cpu_budget_seconds
from ctpo.sandbox.jail import MEMORY_TO_REPORT, Jail, limit
from ctpo.sandbox.kernel import Steps
from ctpo.sandbox.program import Interpreter, seed_all

# What a fork server sends: time-out, address space or 0 to leave it as it is, seed, kind, echo,
# whether descriptors of standard input and of an archive of files follow those of the source and
# the two outputs.
JOB = struct.Struct("=dQIBBBB")
PROGRAM, CALL, REUSED = range(3)
# What it gets: first the pid as /proc has it, or an error; after a call exit code and whether
# memory ran out.
READY = struct.Struct("=I")
CALLED = struct.Struct("=BB")

_SEED = 0
_RIGHTS = socket.CMSG_SPACE(5 * array.array("i").itemsize)


class Inmate:
    """What a child is to be, worked out before it is forked.

    Args:
        jail: What to give up.
        proc: Descriptor of /proc.
    """

    def __init__(self, jail: Jail, proc: int) -> None:
        self._jail = jail
        self._proc = proc
        self._interpreter = Interpreter()

    def live(self, steps: Steps, link: socket.socket) -> NoReturn:
        """Be a slot's process; never returns.

        Args:
            steps: How to shut the jail.
            link: To the fork server.
        """
        exit_process = os._exit
        try:
            try:
                pid = int(os.readlink("self", dir_fd=self._proc))
                self._jail.shut(steps)
                self._interpreter.enter()
                seed_all(_SEED)
            except (OSError, ValueError) as error:
                link.send(f"error: {error}".encode())
            else:
                link.send(READY.pack(pid))
                self._work(link)
        finally:
            exit_process(1)

    def _work(self, link: socket.socket) -> NoReturn:
        while True:
            data, ancillary, _, _ = link.recvmsg(JOB.size, _RIGHTS)
            if not data:
                os._exit(0)
            timeout, memory, seed, kind, echo, has_stdin, has_files = JOB.unpack(data)
            given = array.array("i", ancillary[0][2])
            code, stdout, stderr = given[:3]
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            if has_stdin:
                os.dup2(given[3], 0)
            source = os.pread(code, os.fstat(code).st_size, 0)
            if has_files:
                packed = given[-1]
                archive.write(archive.unpack(os.pread(packed, os.fstat(packed).st_size, 0)))
            for descriptor in given:
                os.close(descriptor)
            if seed != _SEED:
                seed_all(seed)
            if "cpu-time" not in self._jail.plan.without:
                used = 0.0
                if kind != PROGRAM:
                    used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
                soft = math.ceil(used + cpu_budget_seconds(timeout))
                # In a session the next call gets more; the fork server counts there.
                hard = soft + 1 if kind == PROGRAM else resource.RLIM_INFINITY
                limit(resource.RLIMIT_CPU, soft, hard)
            text = source.decode("utf-8", "surrogatepass")
            if memory:
                limit(resource.RLIMIT_AS, memory, memory + MEMORY_TO_REPORT)
            if kind == PROGRAM:
                link.close()
                self._interpreter.run(text)
            if kind == REUSED:
                self._interpreter = Interpreter()
            exit_code, out_of_memory = self._interpreter.call(text, echo=bool(echo))
            with contextlib.suppress(OSError):  # the program can close it: that ends the session
                link.send(CALLED.pack(exit_code & 0xFF, out_of_memory))
