"""Which protections there are, in words, and the ladder of what a machine may allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LIMITS = "limits on CPU time, address space, file size, descriptors and output"
PROCESS_LIMIT = "limit on the number of processes and threads"
CLEAN_UP = "every process a program leaves behind is killed"
NO_NEW_PRIVILEGES = "no new privileges, no capabilities"
OWN_USER = "an unprivileged user id of its own for every program"
OTHERS_HIDDEN = "no process outside can be seen or signalled"
NO_NETWORK = "no network"
READ_ONLY_VIEW = "a read-only view of the interpreter and the system's libraries, nothing else"
SCRATCH = "a private scratch directory, limited in size, gone after the run"
NO_IPC = "no shared memory or message queue outlives a run"
SYSTEM_CALLS = "allow-list of system calls: no fork, exec, sockets, signals to others"
LANDLOCK = "landlock on files and signals"
OWN_TIME = "time-outs count the program's own time"
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
    SYSTEM_CALLS,
    LANDLOCK,
    OWN_TIME,
    MEMORY_SUM,
)

# From the strongest to the weakest. A rung counts only when a program has run on it.
RUNGS = (
    "user, mount, process, network and IPC namespaces",
    "mount, process, network and IPC namespaces as root",
    "landlock and an allow-list of system calls, without namespaces",
    "limits only",
)
USER_NAMESPACE, ROOT_NAMESPACES, LANDLOCK_ONLY, LIMITS_ONLY = RUNGS

# What the tests and `ctpo sandbox check --without` can switch off, one at a time, to see that
# something then comes through.
SWITCHES = (
    "seccomp",
    "landlock",
    "user-ids",
    "view",
    "network-namespace",
    "process-namespace",
    "capabilities",
    "address-space",
    "cpu-time",
    "processes",
    "descriptors",
    "file-size",
    "scratch-size",
    "fresh-scratch",
    "fresh-process",
    "output-limit",
    "time-out",
    "environment",
)


class SandboxUnavailable(RuntimeError):
    """This machine cannot run the sandbox as asked; the message names what is missing."""


@dataclass(frozen=True)
class Protections:
    """Which protections are in force, in words, as found by trying them.

    Attributes:
        rung: The step of the ladder.
        in_force: Protections that every program runs under.
        missing: The others, each as `name: reason`.
        weak: Whether only limits apply, so that the program can do what its caller can.
    """

    rung: str
    in_force: tuple[str, ...]
    missing: tuple[str, ...]
    weak: bool

    @classmethod
    def found(
        cls, in_force: Sequence[str], missing: Mapping[str, str], rung: str, refusals: str
    ) -> Protections:
        """What a fork server reported.

        Args:
            in_force: Names of what is in force.
            missing: Reasons, by name, that are its own.
            rung: Its step of the ladder.
            refusals: Why there is none higher.
        """
        absent = [name for name in ALL if name not in in_force]
        return cls(
            rung=rung,
            in_force=tuple(in_force),
            missing=tuple(f"{name}: {missing.get(name, refusals)}" for name in absent),
            weak=rung == LIMITS_ONLY,
        )

    def __str__(self) -> str:
        lines = [f"  on       {name}" for name in self.in_force]
        lines += [f"  missing  {name}" for name in self.missing]
        return "\n".join(lines)
