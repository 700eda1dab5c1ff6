"""From a fork of the zygote to a cell: namespaces, the view, and what was found possible."""

from __future__ import annotations

import os
import signal
import socket

from ctpo.sandbox import kernel, uncontained, view, wire
from ctpo.sandbox import protections as p
from ctpo.sandbox.cell import Cell
from ctpo.sandbox.clock import read
from ctpo.sandbox.plan import Plan
from ctpo.sandbox.scratch import Scratch

# Sent to the zygote, which answers with the same once it has written the maps of ids.
NAMESPACED = b"n"
_NAMESPACES = (
    kernel.CLONE_NEWNS
    | kernel.CLONE_NEWPID
    | kernel.CLONE_NEWNET
    | kernel.CLONE_NEWIPC
    | kernel.CLONE_NEWUTS
)
_OUT_OF_MEMORY_SCORE = b"500"


def enter(plan: Plan, connection: socket.socket, gate: socket.socket) -> None:
    """Become a cell and serve `connection`; returns when it ends.

    The first message on the connection says what is in force, or `error`.

    Args:
        plan: The rung to stand on, and the limits.
        connection: To the caller.
        gate: To the zygote, for the maps of ids.
    """
    kernel.close_all_except((0, 1, 2, connection.fileno(), gate.fileno()))
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if plan.namespaces:
            _enter_namespaces(plan, gate)
            first = os.fork()  # the first process of the new pid namespace
            if first != 0:
                kernel.close_all_except(())
                os.waitpid(first, 0)
                return
            kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        gate.close()
        missing = _settle(plan, proc)
        cell = Cell(plan, proc, Scratch(plan))
    except OSError as error:
        wire.send(connection, {"error": str(error)})
        return
    in_force = [name for name in _promised(plan) if name not in missing]
    wire.send(connection, {"in_force": in_force, "missing": missing})
    cell.serve(connection)


def _enter_namespaces(plan: Plan, gate: socket.socket) -> None:
    user = kernel.CLONE_NEWUSER if plan.rung == p.USER_NAMESPACE else 0
    kernel.unshare(user | _NAMESPACES)
    if user:
        gate.sendall(NAMESPACED)
        if gate.recv(1) != NAMESPACED:
            raise OSError("the user namespace got no ids")


def _settle(plan: Plan, proc: int) -> dict[str, str]:
    """Set up what outlives the programs; what could not be had, by name, with the reason."""
    missing = {}
    _write(proc, "self/oom_score_adj", _OUT_OF_MEMORY_SCORE)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    try:
        uncontained.refuse()
    except OSError as error:
        missing[p.UNCONTAINED] = str(error)
    if plan.rung == p.USER_NAMESPACE:
        try:
            _write(proc, "sys/user/max_user_namespaces", b"0")
        except OSError as error:
            missing[p.NO_NAMESPACES] = str(error)
        if plan.uid is None:
            missing[p.OWN_USER] = "not started as root: programs carry their caller's id"
    if plan.namespaces:
        view.enter()
    if int((read(proc, "self/schedstat").split() or [b"0"])[0]) == 0:
        missing[p.OWN_TIME] = "the kernel keeps no scheduling statistics"
    os.environ.update(dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR"), plan.scratch))
    return missing


def _promised(plan: Plan) -> list[str]:
    """What a rung gives when every step on it has succeeded."""
    promised = [p.LIMITS, p.NO_NEW_PRIVILEGES, p.UNCONTAINED, p.OWN_TIME]
    if plan.namespaces:
        promised += [p.PROCESS_LIMIT, p.CLEAN_UP, p.OTHERS_HIDDEN]
        promised += [p.NO_NETWORK, p.READ_ONLY_VIEW, p.SCRATCH, p.NO_IPC]
    if plan.rung == p.USER_NAMESPACE:
        promised.append(p.NO_NAMESPACES)
    if plan.uid is not None:
        promised += [p.PROCESS_LIMIT, p.CLEAN_UP, p.OWN_USER]
    return [name for name in p.ALL if name in promised]


def _write(proc: int, path: str, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        os.write(descriptor, text)
    finally:
        os.close(descriptor)
