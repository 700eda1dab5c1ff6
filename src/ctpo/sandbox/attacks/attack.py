"""The list of attacks, and how one is tried."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ctpo.sandbox.attacks.targets import Targets
from ctpo.sandbox.execution import Execution
from ctpo.sandbox.sandbox import Sandbox

# By name: numbers of system calls on x86-64 and aarch64.
_CALLS = {
    "add_key": (248, 217),
    "bpf": (321, 280),
    "capset": (126, 91),
    "clone": (56, 220),
    "clone3": (435, 435),
    "connect": (42, 203),
    "fsopen": (430, 430),
    "io_uring_setup": (425, 425),
    "ioprio_set": (251, 30),
    "keyctl": (250, 219),
    "memfd_create": (319, 279),
    "mount": (165, 40),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "name_to_handle_at": (303, 264),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "prctl": (157, 167),
    "process_vm_readv": (310, 270),
    "ptrace": (101, 117),
    "rt_sigqueueinfo": (129, 138),
    "seccomp": (317, 277),
    "semget": (64, 190),
    "setns": (308, 268),
    "shmget": (29, 194),
    "socket": (41, 198),
    "tgkill": (234, 131),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}
_PRELUDE = """
import ctypes, os, socket, struct, sys, time, types
T = types.SimpleNamespace(**{target})
CALLS = {calls}
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(name, *arguments):
    number = CALLS[name][os.uname().machine == "aarch64"]
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *wide)
    if result < 0: raise OSError(ctypes.get_errno(), name)
    return result
def reached(): print("reached-" + T.nonce, flush=True)
"""
_TIMES = 6
_INNOCENT, _ANSWER = "import json; print(json.dumps([6 * 7, len('abc')]))", "[42, 3]\n"


@dataclass(frozen=True)
class Attack:
    """A hostile program.

    Attributes:
        kind: What it is after.
        name: What it does, in words.
        code: The program.
        then: A second one, run after it, that looks for what it left.
    """

    kind: str
    name: str
    code: str
    then: str | None


@dataclass(frozen=True)
class Outcome:
    """What came of an attack.

    Attributes:
        reached: How it is known to have reached its goal; empty if it did not.
        innocent: Whether a harmless program ran right afterwards.
        execution: The attacker's own end.
    """

    reached: str
    innocent: bool
    execution: Execution


@cache
def attacks() -> tuple[Attack, ...]:
    """The list."""
    text = (Path(__file__).parent / "snippets.txt").read_text()
    found = []
    for section in text.split("\n== ")[1:]:
        title, _, body = section.partition("\n")
        kind, _, name = title.partition(": ")
        code, _, then = body.partition("\n-- then\n")
        found.append(Attack(kind, name, code.strip("\n"), then.strip("\n") or None))
    return tuple(found)


def try_attack(attack: Attack, sandbox: Sandbox, targets: Targets, timeout: float = 1.0) -> Outcome:
    """Run an attack and see what came of it."""
    nonce = secrets.token_hex(8)
    target = targets.target | {
        "nonce": nonce,
        "timeout": timeout,
        "memory_bytes": sandbox.memory_bytes,
    }
    prelude = _PRELUDE.format(target=json.dumps(target), calls=_CALLS)
    targets.expect(nonce)
    execution = sandbox.run(prelude + attack.code, timeout=timeout)
    said = execution.stdout + execution.stderr
    if attack.then is not None:
        # More than once, since the next program is not always run in the same place.
        for execution_after in sandbox.run_many([prelude + attack.then] * _TIMES, timeout=timeout):
            said += execution_after.stdout
    reached = targets.evidence()
    if f"reached-{nonce}" in said:
        reached = "it said so"
    elif targets.secret in said:
        reached = "it read the secret"
    elif max(len(execution.stdout), len(execution.stderr)) > sandbox.output_bytes:
        reached = "its output was longer than is kept"
    innocent = sandbox.run(_INNOCENT)
    return Outcome(reached, innocent.stdout == _ANSWER, execution)
