"""The child of a fork server: it shuts its jail, waits for one program, runs it and ends."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import socket
from typing import NoReturn

from ctpo.sandbox import archive, program, wire
from ctpo.sandbox.execution import cpu_budget_seconds
from ctpo.sandbox.jail import Jail, limit
from ctpo.sandbox.scratch import Scratch

_SEED = 0


def live(jail: Jail, slot: int, scratch: Scratch, proc: int, link: socket.socket) -> NoReturn:
    """Be a slot's process; never returns.

    Args:
        jail: What to give up.
        slot: Which slot.
        scratch: Its directory.
        proc: Descriptor of /proc, to learn this process's number there.
        link: To the fork server: takes "ready" or an error, gives the program.
    """
    exit_process = os._exit
    try:
        try:
            proc_pid = int(os.readlink("self", dir_fd=proc))
            jail.shut(slot, scratch, keep=(0, 1, 2, link.fileno()))
            program.seed_all(_SEED)
        except (OSError, ValueError) as error:
            wire.send(link, {"error": str(error)})
        else:
            wire.send(link, {"pid": proc_pid})
            _work(link, jail)
    finally:
        exit_process(1)


def _work(link: socket.socket, jail: Jail) -> NoReturn:
    interpreter = None
    while True:
        try:
            job, descriptors = wire.receive(link)
        except EOFError:
            os._exit(0)
        given = dict(zip(job["given"], descriptors, strict=True))
        for name, standard in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
            if name in given:
                os.dup2(given[name], standard)
                os.close(given[name])
        source = _content(given["code"]).decode("utf-8", "surrogatepass")
        if "files" in given:
            archive.write(archive.unpack(_content(given["files"])))
        if job["seed"] != _SEED and (interpreter is None or not job["session"]):
            program.seed_all(job["seed"])
        if "cpu-time" not in jail.plan.without:
            used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
            soft = math.ceil(used + cpu_budget_seconds(job["timeout"]))
            # In a session the next call gets more; the fork server counts there.
            hard = resource.RLIM_INFINITY if job["session"] else soft + 1
            limit(resource.RLIMIT_CPU, soft, hard)
        if not job["session"]:
            link.close()
            program.Interpreter().run(source)
        if interpreter is None or job["session"] == "reused":
            interpreter = program.Interpreter()
        code, out_of_memory = interpreter.call(source, echo=job["echo"])
        with contextlib.suppress(OSError):  # the program can close it: that ends the session
            wire.send(link, {"code": code, "memory": out_of_memory})


def _content(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        file.seek(0)
        return file.read()
