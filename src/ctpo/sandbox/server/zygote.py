"""The server process: imports what programs will want, once, and forks fork servers on request.

It never sees a program. What it knows, every program's process starts with a copy of.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import traceback
from typing import Any

from ctpo.sandbox import wire
from ctpo.sandbox.jail import kernel, memory
from ctpo.sandbox.jail.plan import INNER_UID, Plan, spare_uid
from ctpo.sandbox.jail.scratch import delete_tree
from ctpo.sandbox.protections import ROOT_NAMESPACES, USER_NAMESPACE
from ctpo.sandbox.server import fork_server_start
from ctpo.sandbox.server.cleanup import end_children


def main(control: int, parent: int, preload: str) -> None:
    """Serve until the parent closes the connection or dies.

    Args:
        control: Descriptor of the connection to the parent.
        parent: The parent's pid.
        preload: Names of modules, separated by commas.
    """
    connection = socket.socket(fileno=control)
    connection.set_inheritable(False)
    parent_process = os.pidfd_open(parent)
    if os.getppid() != parent:
        return
    # A handler would make the first process of a pid namespace open to the signal.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    if not os.path.exists("/proc/thread-self/children"):
        wire.send(connection, {"error": "the kernel does not list children (CONFIG_PROC_CHILDREN)"})
        return
    try:
        for name in (*USUAL, *filter(None, preload.split(","))):
            importlib.import_module(name)
        _warm()
    except BaseException as error:
        wire.send(connection, {"error": f"preload: {type(error).__name__}: {error}"})
        raise
    memory.join_mappings()
    gc.collect()
    gc.freeze()
    memory.use_huge_pages()
    memory.use_huge_pages_for_code()
    wire.send(connection, {})
    Zygote(connection).serve(parent_process)


# Of the standard library, what programs that compute like to import; together five megabytes.
USUAL = (
    *("bisect", "cmath", "collections", "datetime", "decimal", "fractions", "functools", "heapq"),
    *("itertools", "json", "math", "operator", "random", "re", "statistics", "string"),
    *("contextlib", "copy", "dataclasses", "enum", "textwrap", "traceback", "typing"),
)


def _warm() -> None:
    """Have the preloaded modules do once what they put off until first use."""
    if "numpy" in sys.modules:
        # numpy imports it on first use; every program would then seed its own.
        importlib.import_module("numpy.random")
        numpy = sys.modules["numpy"]
        numpy.linalg.solve(numpy.eye(3), numpy.ones(3))
    if "sympy" in sys.modules:
        sympy = sys.modules["sympy"]
        x = sympy.Symbol("x")
        sympy.solve(x**2 - 2 * x - 3, x)
        sympy.simplify(sympy.sin(x) ** 2 + sympy.cos(x) ** 2)
        sympy.integrate(x * sympy.exp(x), x)
        sympy.factorint(2**31 + 11)
        str(sympy.expand((x + 1) ** 3)), sympy.N(sympy.pi, 30)
        sympy.core.cache.clear_cache()


class Zygote:
    """Forks fork servers.

    Args:
        connection: To the parent, which asks for a server by number, rung and limits.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._pids: dict[int, int] = {}
        self._host_scratch: str | None = None

    def serve(self, parent_process: int) -> None:
        """Answer requests until the connection ends or `parent_process` (a pidfd) does."""
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        poll.register(parent_process, select.POLLIN)
        try:
            while parent_process not in dict(poll.poll()):
                try:
                    request, _ = wire.receive(self._connection)
                except (EOFError, ConnectionResetError):
                    return
                try:
                    caller = self._start_fork_server(request)
                except OSError as error:
                    wire.send(self._connection, {"error": str(error)})
                    continue
                wire.send(self._connection, {}, [caller.fileno()])
                caller.close()
        finally:
            end_children(self._proc)
            if self._host_scratch is not None:
                delete_tree(self._host_scratch)

    def _start_fork_server(self, request: dict[str, Any]) -> socket.socket:
        """Replace a fork server by a new one; the caller's end of the connection to it."""
        number, rung = int(request.pop("number")), str(request["rung"])
        self._end_fork_server(number)
        without = frozenset(request.pop("without"))
        namespaces = rung in (USER_NAMESPACE, ROOT_NAMESPACES)
        plan = Plan(
            outer_uid=spare_uid(rung, number),
            host_scratch=None
            if namespaces and "view" not in without
            else self._scratch_on_host(number),
            without=without,
            **request,
        )
        callers, servers = wire.pair()
        gate, servers_gate = wire.pair()
        pid = os.fork()
        if pid == 0:
            try:
                fork_server_start.start(plan, servers, servers_gate)
            except BaseException:
                traceback.print_exc()  # into the file the parent reads
                raise
            finally:
                os._exit(0)
        self._pids[number] = pid
        servers.close()
        servers_gate.close()
        with gate:
            # It says nothing where there is no user namespace, or none to be had.
            if rung == USER_NAMESPACE and gate.recv(1) == fork_server_start.NAMESPACED:
                _map_ids(pid, plan)
                gate.sendall(fork_server_start.NAMESPACED)
        return callers

    def _end_fork_server(self, number: int) -> None:
        # First what ended by itself: a reaped pid may be somebody else's by now.
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitpid(-1, os.WNOHANG)[0]:
                self._pids = {n: pid for n, pid in self._pids.items() if pid != ended}
        pid = self._pids.pop(number, None)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _scratch_on_host(self, number: int) -> str:
        if self._host_scratch is None:
            import tempfile  # which nothing else needs, and every program would carry

            self._host_scratch = tempfile.mkdtemp(prefix=f"ctpo-sandbox-{os.getppid()}-")
            os.chmod(self._host_scratch, 0o711)
        path = os.path.join(self._host_scratch, str(number))
        delete_tree(path)  # what the one before left
        os.mkdir(path)
        os.chmod(path, 0o711)
        return path


def _map_ids(pid: int, plan: Plan) -> None:
    """Give a user namespace the ids its programs need."""
    if plan.outer_uid is None:
        uids = f"{INNER_UID} {os.geteuid()} 1"
        gids = f"{INNER_UID} {os.getegid()} 1"
        # Without it an unprivileged process may not map a group.
        _write(f"/proc/{pid}/setgroups", "deny")
    else:
        uids = gids = f"0 0 1\n{INNER_UID} {plan.outer_uid} {plan.slots}"
    _write(f"/proc/{pid}/gid_map", gids)
    _write(f"/proc/{pid}/uid_map", uids)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
