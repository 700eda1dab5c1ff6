"""What a program's process gives up before it is given a line of the program."""

from __future__ import annotations

import os
import resource
import signal
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from ctpo.sandbox.jail import file_tree, kernel, landlock
from ctpo.sandbox.jail.plan import (
    KEPT_PROCESSES,
    MOST_DESCRIPTORS,
    MOST_PENDING_SIGNALS,
    MOST_PROCESSES,
    SCRATCH,
    SCRATCH_BYTES,
    SHARED_PROCESSES,
    Plan,
)
from ctpo.sandbox.jail.scratch import Scratch
from ctpo.sandbox.jail.seccomp import Filter
from ctpo.sandbox.protections import LIMITS_ONLY

# Left to the soft limit's hard one, so that a MemoryError can still be reported.
MEMORY_TO_REPORT = 32 << 20


@dataclass(frozen=True)
class Jail:
    """What a fork server works out once for all its children.

    Attributes:
        plan: How they are confined.
        base_space: Bytes of address space that a child starts with.
        filter: The system calls they may make; `None` where the kernel takes no filter.
        landlock: The kernel's version; 0 where there is none.
        readable: Descriptors of what may be read, with rights; empty with a file tree.
        shared_id: Whether all programs have one user id, and the threads of all are counted.
    """

    plan: Plan
    base_space: int
    filter: Filter | None
    landlock: int
    readable: Sequence[tuple[int, int]]
    shared_id: bool

    def prepare(self) -> None:
        """Set what a fork server can bear itself and its children inherit."""
        self._limit()
        if self.plan.file_tree:
            _at_home(SCRATCH)

    def ruleset(self, slot: int, scratch: Scratch) -> int:
        """A landlock ruleset for a slot, as a descriptor; -1 where there is none."""
        if not self.landlock:
            return -1
        root = file_tree.root_of(slot) if self.plan.file_tree else ""
        rights = {scratch.path: landlock.CHANGE}
        rights |= {root + device: landlock.READ | landlock.WRITE for device in file_tree.DEVICES}
        if self.plan.file_tree:
            rights[root] = landlock.READ
        opened = landlock.open_paths(rights)
        try:
            return landlock.ruleset([*self.readable, *opened], self.landlock)
        finally:
            for descriptor, _ in opened:
                os.close(descriptor)

    def steps(self, slot: int, scratch: Scratch, ruleset: int) -> kernel.Steps:
        """What a slot's child has to do to confine itself, in an order in which each is allowed.

        Args:
            slot: Whose id to take.
            scratch: Where to be.
            ruleset: What landlock is to allow, as a descriptor; -1 for nothing of the kind.
        """
        plan = self.plan
        steps = kernel.Steps()
        steps.add("setsid")
        if plan.file_tree:
            steps.add("chroot", os.fsencode(file_tree.root_of(slot)))
        steps.add("chdir", os.fsencode(SCRATCH if plan.file_tree else scratch.path))
        steps.add("prctl", kernel.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if ruleset >= 0:
            steps.add("landlock_restrict_self", ruleset, 0)
        steps.add_close()
        uid = plan.uid(slot)
        if uid is not None:
            steps.add("setgroups", 0, None)
            steps.add("setresgid", uid, uid, uid)
            steps.add("setresuid", uid, uid, uid)
        if "capabilities" not in plan.without:
            steps.add("capset", kernel.CAPABILITY_HEADER, kernel.NO_CAPABILITIES)
        steps.add("prctl", kernel.PR_SET_DUMPABLE, 0, 0, 0, 0)
        # After the change of ids, which would clear it.
        steps.add("prctl", kernel.PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if "descriptors" not in plan.without:
            most = min(MOST_DESCRIPTORS, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
            value = struct.pack("=QQ", most, most)
            steps.add("prlimit64", 0, int(resource.RLIMIT_NOFILE), value, None)
        return steps

    def shut(self, steps: kernel.Steps) -> None:
        """Confine this process for good, but for what its own programs have to give up.

        Raises:
            OSError: A step was refused; no program must run.
        """
        steps.take()
        if not self.plan.file_tree:
            _at_home(os.getcwd())

    def list_calls(self) -> None:
        """Take the list of system calls, with which a worker can still fork.

        Raises:
            OSError: It was refused; no program must run.
        """
        if self.filter is not None:
            self.filter.install()

    def filter_calls(self) -> None:
        """Take the rest of the filter of system calls, which comes last and allows no fork.

        Raises:
            OSError: It was refused; no program must run.
        """
        if self.shared_id:
            # Whatever threads programs make, there is room for the next program.
            limit(resource.RLIMIT_NPROC, SHARED_PROCESSES, SHARED_PROCESSES)
        if self.filter is not None:
            self.filter.install_own(os.getpid())

    def _limit(self) -> None:
        limits = {
            "address-space": (resource.RLIMIT_AS, self.base_space + self.plan.memory_bytes),
            "file-size": (resource.RLIMIT_FSIZE, SCRATCH_BYTES),
            "processes": (resource.RLIMIT_NPROC, MOST_PROCESSES),
            "core files": (resource.RLIMIT_CORE, 0),
            "locked memory": (resource.RLIMIT_MEMLOCK, 0),
            "message queues": (resource.RLIMIT_MSGQUEUE, 0),
            "pending signals": (resource.RLIMIT_SIGPENDING, MOST_PENDING_SIGNALS),
        }
        if self.plan.rung == LIMITS_ONLY:
            # There it would count every process of the caller's.
            del limits["processes"]
        elif self.shared_id:
            limits["processes"] = (resource.RLIMIT_NPROC, SHARED_PROCESSES + KEPT_PROCESSES)
        for name, (kind, value) in limits.items():
            if name not in self.plan.without:
                extra = MEMORY_TO_REPORT if kind == resource.RLIMIT_AS else 0
                limit(kind, value, value + extra)


def _at_home(place: str) -> None:
    for name in ("HOME", "TMPDIR", "MPLCONFIGDIR"):
        os.environ[name] = place


def limit(kind: int, soft: int, hard: int) -> None:
    """Set a limit, but no higher than the hard one that this process was started under."""
    most = resource.getrlimit(kind)[1]
    none = resource.RLIM_INFINITY  # which is -1
    if most != none and not 0 <= hard <= most:
        hard = most
    if hard != none and not 0 <= soft <= hard:
        soft = hard
    resource.setrlimit(kind, (soft, hard))
