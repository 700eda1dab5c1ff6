"""Which protections there are, in words, and the ladder of what a machine may allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LIMITS = "limits on CPU time, address space, file size and descriptors of each process"
PROCESS_LIMIT = "limit on the number of processes and threads"
CLEAN_UP = "every process a program leaves behind is killed"
NO_NEW_PRIVILEGES = "no new privileges, no capabilities"
OWN_USER = "an unprivileged user id of its own for every worker"
OTHERS_HIDDEN = "no other process can be seen or signalled"
NO_NETWORK = "no network"
READ_ONLY_VIEW = "a read-only view of the interpreter and the system's libraries, nothing else"
SCRATCH = "a private scratch directory, limited in size, gone after the run"
NO_IPC = "no shared memory or message queue outlives a run"
NO_NAMESPACES = "no further namespaces"
UNCONTAINED = "no sockets to the hypervisor, no keyrings, no io_uring"
OWN_TIME = "time-outs count the program's own time"
SYSTEM_CALLS = "allow-list of system calls"
MEMORY_SUM = "limit on the memory of all processes of a program together"

ALL = (
    LIMITS,
    PROCESS_LIMIT,
    CLEAN_UP,
    NO_NEW_PRIVILEGES,
    OWN_USER,
    OTHERS_HIDDEN,
    NO_NETWORK,
    READ_ONLY_VIEW,
    SCRATCH,
    NO_IPC,
    NO_NAMESPACES,
    UNCONTAINED,
    OWN_TIME,
    SYSTEM_CALLS,
    MEMORY_SUM,
)

# From the strongest to the weakest. A rung counts only when a program has run on it.
RUNGS = (
    "user, mount, process, network and IPC namespaces",
    "mount, process, network and IPC namespaces as root",
    "a user id of its own",
    "limits only",
)
USER_NAMESPACE, ROOT_NAMESPACES, USER_ID, LIMITS_ONLY = RUNGS


class SandboxUnavailable(RuntimeError):
    """This machine cannot run the sandbox as asked; the message names what is missing."""


@dataclass(frozen=True)
class Protections:
    """Which protections are in force, in words, as found by trying them.

    Attributes:
        in_force: Protections that every program runs under.
        missing: The others, each as `name: reason`.
        weak: Whether only limits apply, so that the program can do what its caller can.
    """

    in_force: tuple[str, ...]
    missing: tuple[str, ...]
    weak: bool

    @classmethod
    def found(
        cls, in_force: Sequence[str], missing: Mapping[str, str], rung: str, refusals: str
    ) -> Protections:
        """What a cell reported.

        Args:
            in_force: Names of what is in force.
            missing: Reasons, by name, that are the cell's own.
            rung: Where it stands on the ladder.
            refusals: Why it does not stand higher.
        """
        reasons = {
            SYSTEM_CALLS: "not in this version",
            MEMORY_SUM: "not in this version: each process has a limit of its own",
            **missing,
        }
        absent = [name for name in ALL if name not in in_force]
        return cls(
            in_force=tuple(in_force),
            missing=tuple(f"{name}: {reasons.get(name, refusals)}" for name in absent),
            weak=rung == LIMITS_ONLY,
        )

    def __str__(self) -> str:
        lines = [f"  on       {name}" for name in self.in_force]
        lines += [f"  missing  {name}" for name in self.missing]
        return "\n".join(lines)
