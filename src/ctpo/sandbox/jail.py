"""What a program's process gives up before it is given a line of the program."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from ctpo.sandbox import kernel, landlock, view
from ctpo.sandbox.plan import (
    MOST_DESCRIPTORS,
    MOST_PROCESSES,
    SCRATCH,
    SCRATCH_BYTES,
    Plan,
)
from ctpo.sandbox.protections import LIMITS_ONLY
from ctpo.sandbox.scratch import Scratch
from ctpo.sandbox.seccomp import Filter

# Left to the soft limit's hard one, so that a MemoryError can still be reported.
MEMORY_TO_REPORT = 32 << 20


@dataclass(frozen=True)
class Jail:
    """What a fork server works out once for all its children.

    Attributes:
        plan: How they are confined.
        address_space: Most bytes of address space.
        filter: The system calls they may make; `None` where the kernel takes no filter.
        landlock: The kernel's version; 0 where there is none.
        readable: Descriptors of what may be read, with rights; empty with a view, whose root is.
    """

    plan: Plan
    address_space: int
    filter: Filter | None
    landlock: int
    readable: Sequence[tuple[int, int]]

    def shut(self, slot: int, scratch: Scratch, keep: Sequence[int]) -> None:
        """Confine this process for good, in an order in which each step is still allowed.

        Args:
            slot: Whose id to take.
            scratch: Where to be.
            keep: Descriptors to leave open.

        Raises:
            OSError: A step was refused; no program must run.
        """
        plan = self.plan
        os.setsid()
        place = scratch.path
        if plan.view:
            os.chroot(view.root_of(slot))
            place = SCRATCH
        os.chdir(place)
        for name in ("HOME", "TMPDIR", "MPLCONFIGDIR"):
            os.environ[name] = place
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        if self.landlock:
            self._restrict_files(place)
        kernel.close_all_except(keep)
        uid = plan.uid(slot)
        if uid is not None:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        if "capabilities" not in plan.without:
            kernel.drop_capabilities()
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
        # After the change of ids, which would clear it.
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        self._limit()
        if self.filter is not None:
            self.filter.install(os.getpid())

    def _restrict_files(self, place: str) -> None:
        rights = {place: landlock.CHANGE} | dict.fromkeys(view.DEVICES, landlock.READ | 2)
        if self.plan.view:
            rights = {"/": landlock.READ, **rights}
        landlock.restrict([*self.readable, *landlock.open_paths(rights)], self.landlock)

    def _limit(self) -> None:
        limits = {
            "address-space": (resource.RLIMIT_AS, self.address_space),
            "file-size": (resource.RLIMIT_FSIZE, SCRATCH_BYTES),
            "descriptors": (resource.RLIMIT_NOFILE, MOST_DESCRIPTORS),
            "processes": (resource.RLIMIT_NPROC, MOST_PROCESSES),
            "": (resource.RLIMIT_CORE, 0),
            " ": (resource.RLIMIT_MEMLOCK, 0),
            "  ": (resource.RLIMIT_MSGQUEUE, 0),
        }
        if self.plan.rung == LIMITS_ONLY:
            # There it would count every process of the caller's.
            del limits["processes"]
        elif self.plan.uid(0) is None:
            # All slots have the same id, and are counted together.
            limits["processes"] = (resource.RLIMIT_NPROC, MOST_PROCESSES * (self.plan.slots + 1))
        for name, (kind, value) in limits.items():
            if name not in self.plan.without:
                extra = MEMORY_TO_REPORT if kind == resource.RLIMIT_AS else 0
                limit(kind, value, value + extra)


def limit(kind: int, soft: int, hard: int) -> None:
    """Lower a limit, or leave it where it is lower already."""
    most = resource.getrlimit(kind)[1]
    if most != resource.RLIM_INFINITY:
        hard = min(hard, most)
    resource.setrlimit(kind, (min(soft, hard), hard))
