"""What the zygote tells a cell: the rung it stands on, whose id its programs get, their limits."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ctpo.sandbox.protections import LIMITS_ONLY, ROOT_NAMESPACES, USER_ID, USER_NAMESPACE

# The id programs see as their own inside a user namespace.
INNER_UID = 1000
SCRATCH_BYTES = 64 << 20
SCRATCH_INODES = 4096
MOST_PROCESSES = 64
MOST_DESCRIPTORS = 256


@dataclass(frozen=True)
class Plan:
    """How one cell confines its programs.

    Attributes:
        rung: One of `protections.RUNGS`.
        outer_uid: The otherwise unused user id lent to the cell's programs; `None` where the
            machine has none to lend, and programs carry their caller's.
        scratch: The scratch directory as programs see it.
        memory_bytes: Address space a process may add to that of the interpreter.
        output_bytes: How much of each of the two outputs is kept.
    """

    rung: str
    outer_uid: int | None
    scratch: str
    memory_bytes: int
    output_bytes: int

    @property
    def namespaces(self) -> bool:
        """Whether the cell has mount, process, network and IPC namespaces of its own."""
        return self.rung in (USER_NAMESPACE, ROOT_NAMESPACES)

    @property
    def uid(self) -> int | None:
        """The id a program changes to, as seen from inside; `None` where it keeps its own."""
        if self.outer_uid is None or self.rung == LIMITS_ONLY:
            return None
        return INNER_UID if self.rung == USER_NAMESPACE else self.outer_uid


def spare_uid(rung: str, slot: int) -> int | None:
    """A user id that nobody else uses, different for every slot of every sandbox.

    Args:
        rung: One of `protections.RUNGS`.
        slot: The worker's number.

    Raises:
        OSError: The rung needs such an id and there is none.
    """
    with open("/proc/self/uid_map") as lines:
        start, _, count = max((tuple(map(int, line.split())) for line in lines), key=lambda e: e[2])
    if os.geteuid() == 0 and count > 1 << 15:
        # The upper half is far from people and services; the pid tells sandboxes apart.
        half = count // 2
        return int(start + half + (os.getpid() * 256 + slot) % half)
    if rung in (ROOT_NAMESPACES, USER_ID):
        raise PermissionError("no user id to lend: not root, or a user namespace with few ids")
    return None
