"""What a program's process gives up before it runs a line of the program."""

from __future__ import annotations

import math
import os
import resource
import signal

from ctpo.sandbox import kernel
from ctpo.sandbox.execution import cpu_budget_seconds
from ctpo.sandbox.plan import MOST_DESCRIPTORS, MOST_PROCESSES, SCRATCH_BYTES, Plan
from ctpo.sandbox.protections import LIMITS_ONLY

# Left to the soft limit's hard one, so that a MemoryError can still be reported.
MEMORY_TO_REPORT = 32 << 20


def confine(plan: Plan, *, address_space: int, timeout: float) -> None:
    """Confine this process for good, in an order in which each step is still allowed.

    Args:
        plan: Whose id to take.
        address_space: Most bytes of address space.
        timeout: The program's own time in seconds, from which the limit on CPU time follows.

    Raises:
        OSError: A step was refused; the program must not run.
    """
    os.setsid()
    os.chdir(plan.scratch)
    if plan.namespaces:
        # A fresh one for every run, so that no shared memory segment outlives it.
        kernel.unshare(kernel.CLONE_NEWIPC)
    if plan.uid is not None:
        os.setgroups([])
        os.setresgid(plan.uid, plan.uid, plan.uid)
        os.setresuid(plan.uid, plan.uid, plan.uid)
    kernel.drop_capabilities()
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    # After the change of ids, which would clear it.
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    cpu = math.ceil(cpu_budget_seconds(timeout))
    _limit(resource.RLIMIT_CPU, cpu, cpu + 1)
    _limit(resource.RLIMIT_AS, address_space, address_space + MEMORY_TO_REPORT)
    _limit(resource.RLIMIT_FSIZE, SCRATCH_BYTES)
    _limit(resource.RLIMIT_NOFILE, MOST_DESCRIPTORS)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_MEMLOCK, 0)
    _limit(resource.RLIMIT_MSGQUEUE, 0)
    if plan.rung != LIMITS_ONLY:
        # There the limit would count every process of the caller's.
        _limit(resource.RLIMIT_NPROC, MOST_PROCESSES)


def _limit(kind: int, soft: int, hard: int | None = None) -> None:
    most = resource.getrlimit(kind)[1]
    wanted = soft if hard is None else hard
    if most != resource.RLIM_INFINITY:
        wanted = min(wanted, most)
    resource.setrlimit(kind, (min(soft, wanted), wanted))
