"""From a fork of the zygote to a fork server: namespaces, file tree, what was found possible."""

from __future__ import annotations

import os
import resource
import signal
import socket
import traceback

from ctpo.sandbox import protections as p
from ctpo.sandbox import wire
from ctpo.sandbox.jail import file_tree, kernel, landlock
from ctpo.sandbox.jail.jail import Jail
from ctpo.sandbox.jail.plan import Plan
from ctpo.sandbox.jail.seccomp import Filter
from ctpo.sandbox.server.clock import read
from ctpo.sandbox.server.fork_server import ForkServer

# Sent to the zygote, which answers with the same once it has written the maps of ids.
NAMESPACED = b"n"
_OUT_OF_MEMORY_SCORE = b"500"


def start(plan: Plan, connection: socket.socket, gate: socket.socket) -> None:
    """Become a fork server and serve `connection`; returns when it ends.

    The first message on the connection says what is in force, or `error`.

    Args:
        plan: The rung, and the limits.
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
        jail = _jail(plan, proc, missing)
        server = ForkServer(jail, proc, connection)
        server.try_out()
    except (OSError, EOFError) as error:
        wire.send(connection, {"error": str(error)})
        return
    in_force = [name for name in _promised(plan, jail) if name not in missing]
    wire.send(connection, {"in_force": in_force, "missing": missing, "slots": plan.slots})
    try:
        server.serve()
    except BaseException:
        traceback.print_exc()  # into the file the caller reads
        raise


def _enter_namespaces(plan: Plan, gate: socket.socket) -> None:
    flags = kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
    if plan.process_namespace:
        flags |= kernel.CLONE_NEWPID
    if "network-namespace" not in plan.without:
        flags |= kernel.CLONE_NEWNET
    user = kernel.CLONE_NEWUSER if plan.rung == p.USER_NAMESPACE else 0
    kernel.unshare(user | flags)
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
    if plan.namespaces and plan.uid(0) is None:
        missing[p.OWN_USER] = "not started as root: programs carry their caller's id"
        missing[p.PROCESS_LIMIT] = "not started as root: all programs share one limit on threads"
    if plan.rung == p.LANDLOCK_ONLY:
        if plan.uid(0) is None:
            missing[p.OWN_USER] = (
                "not started as root, or the interpreter lies where other users may not read: "
                "programs carry their caller's id"
            )
            missing[p.PROCESS_LIMIT] = "no user id of their own by which to count them"
        missing[p.READ_ONLY_VIEW] = "no namespaces: names and sizes of files can be seen"
        missing[p.SCRATCH] = "no namespaces: a directory of the host's, not limited in size"
    if plan.file_tree:
        file_tree.enter(plan.slots)
    if not any(int(field) for field in read(proc, "self/schedstat").split()):
        missing[p.OWN_TIME] = "the kernel keeps no scheduling statistics"
    return missing


def _jail(plan: Plan, proc: int, missing: dict[str, str]) -> Jail:
    """Find out about seccomp and landlock.

    Raises:
        OSError: The rung needs what the kernel does not have.
    """
    call_filter, abi = None, 0
    try:
        if "seccomp" in plan.without:
            raise OSError("switched off")
        call_filter = _usable_filter(plan)
    except OSError as error:
        missing[p.SYSTEM_CALLS] = str(error)
        missing[p.MEMORY_SUM] = "programs may fork: each process has a limit of its own"
        if plan.rung == p.LANDLOCK_ONLY:
            raise
    try:
        if "landlock" in plan.without and plan.namespaces:
            raise OSError("switched off")
        abi = landlock.version()
    except OSError as error:
        missing[p.LANDLOCK] = str(error)
        if plan.rung == p.LANDLOCK_ONLY:
            raise
    if "landlock" in plan.without or plan.rung == p.LIMITS_ONLY:
        abi = 0
        missing.setdefault(p.LANDLOCK, "not used where only limits are asked for")
    rules = {} if plan.file_tree else dict.fromkeys(file_tree.visible(), landlock.READ)
    pages = int(read(proc, "self/statm").split()[0])
    return Jail(
        plan=plan,
        base_space=pages * resource.getpagesize(),
        filter=call_filter,
        landlock=abi,
        readable=landlock.open_paths(rules) if abi else [],
        shared_id=plan.uid(0) is None and plan.rung != p.LIMITS_ONLY,
    )


def _usable_filter(plan: Plan) -> Filter:
    """The filter, if a child of this process can take it."""
    made = Filter(metadata=plan.separate_metadata)
    pid = os.fork()
    if pid == 0:
        try:
            kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
            made.install()
            made.install_own(os.getpid())
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(pid, 0)[1] != 0:
        raise OSError("the kernel takes no seccomp filter")
    return made


def _promised(plan: Plan, jail: Jail) -> list[str]:
    """What a rung gives when every step on it has succeeded."""
    promised = [p.LIMITS, p.NO_NEW_PRIVILEGES, p.OWN_TIME, p.SYSTEM_CALLS, p.LANDLOCK, p.MEMORY_SUM]
    promised.append(p.CLEAN_UP)
    if plan.namespaces:
        promised += [p.PROCESS_LIMIT, p.OTHERS_HIDDEN, p.NO_NETWORK, p.READ_ONLY_VIEW]
        promised += [p.SCRATCH, p.NO_IPC]
    if plan.rung == p.LANDLOCK_ONLY or (plan.rung == p.LIMITS_ONLY and jail.filter):
        # The filter has no call for them.
        promised += [p.OTHERS_HIDDEN, p.NO_NETWORK, p.NO_IPC]
    if plan.uid(0) is not None:
        promised += [p.OWN_USER, p.PROCESS_LIMIT]
    return [name for name in p.ALL if name in promised]


def _write(proc: int, path: str, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        os.write(descriptor, text)
    finally:
        os.close(descriptor)
