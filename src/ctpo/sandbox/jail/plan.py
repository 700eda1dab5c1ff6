"""How programs are confined: the rung of a fork server, whose ids it lends, its limits."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ctpo.sandbox.protections import LANDLOCK_ONLY, LIMITS_ONLY, ROOT_NAMESPACES, USER_NAMESPACE

# The id that the first slot's programs see as their own inside a user namespace.
INNER_UID = 1000
# The scratch directory as programs see it. Not /tmp: a virtual environment may be there.
SCRATCH = "/sandbox"
SCRATCH_BYTES = 64 << 20
SCRATCH_INODES = 4096
MOST_PROCESSES = 64
# Where all programs have one user id: together, and beyond them what the sandbox itself needs.
SHARED_PROCESSES, KEPT_PROCESSES = 1024, 512
MOST_PENDING_SIGNALS = 256
MOST_DESCRIPTORS = 256
# What is collected of a program's files, all together.
COLLECTED_BYTES = 16 << 20
# At most so many slots of one fork server; also how far apart the ids of two servers are.
MOST_SLOTS = 256


@dataclass(frozen=True)
class Plan:
    """How one fork server confines its programs.

    Attributes:
        rung: One of `protections.RUNGS`.
        outer_uid: The first of the otherwise unused user ids lent to the programs, one per slot;
            `None` where the machine has none to lend, and programs carry their caller's.
        slots: How many programs it can hold at once.
        ahead: Whether children are forked and jailed before there is work for them.
        host_scratch: Directory for scratch directories where there is no file tree of its own.
        memory_bytes: Address space a program may add to that of the interpreter.
        output_bytes: How much of each of the two outputs is kept.
        without: Protections switched off, of `protections.SWITCHES`; for tests of the tests.
    """

    rung: str
    outer_uid: int | None
    slots: int
    ahead: bool
    host_scratch: str | None
    memory_bytes: int
    output_bytes: int
    without: frozenset[str] = frozenset()

    @property
    def most_page_table_bytes(self) -> int:
        """What the kernel may need for a program's memory: 1/512 of it if it lies together."""
        return max(16 << 20, self.memory_bytes >> 6)

    @property
    def namespaces(self) -> bool:
        """Whether there are namespaces."""
        return self.rung in (USER_NAMESPACE, ROOT_NAMESPACES)

    @property
    def file_tree(self) -> bool:
        """Whether programs see a file tree of their own."""
        return self.namespaces and "view" not in self.without

    @property
    def process_namespace(self) -> bool:
        """Whether the fork server is the first process of its world."""
        return self.namespaces and "process-namespace" not in self.without

    @property
    def separate_metadata(self) -> bool:
        """Whether mounts keep modes and times of files safe, which landlock does not."""
        return self.file_tree or self.rung == LIMITS_ONLY

    def uid(self, slot: int) -> int | None:
        """The id a program changes to, as seen from inside; `None` where it keeps its own."""
        if self.outer_uid is None or self.rung == LIMITS_ONLY or "user-ids" in self.without:
            return None
        return (INNER_UID if self.rung == USER_NAMESPACE else self.outer_uid) + slot


def spare_uid(rung: str, number: int) -> int | None:
    """The first of `MOST_SLOTS` user ids that nobody else uses.

    Args:
        rung: One of `protections.RUNGS`.
        number: The fork server's, within its sandbox.

    Raises:
        OSError: The rung needs such ids and there are none.
    """
    if rung == LANDLOCK_ONLY and not _others_may_read(os.__file__):
        return None  # without a file tree of their own they could not import anything
    with open("/proc/self/uid_map") as lines:
        start, _, count = max((tuple(map(int, line.split())) for line in lines), key=lambda e: e[2])
    if os.geteuid() == 0 and count > 1 << 15:
        # The upper half is far from people and services; the pid tells sandboxes apart.
        half = count // 2
        places = half // MOST_SLOTS
        return int(start + half + (os.getpid() * 16 + number) % places * MOST_SLOTS)
    if rung == ROOT_NAMESPACES:
        raise PermissionError("no user id to lend: not root, or a user namespace with few ids")
    return None


def _others_may_read(path: str) -> bool:
    """Whether any user id at all may read a file."""
    readable = bool(os.stat(path).st_mode & 0o004)
    above = os.path.realpath(path)
    while readable and above != "/":
        above = os.path.dirname(above)
        readable = bool(os.stat(above).st_mode & 0o001)
    return readable
