"""Hostile programs: none reaches its goal, and each protection is missed when it is off."""

import os
from collections import Counter

import pytest

from ctpo.sandbox import Sandbox
from ctpo.sandbox import protections as p
from ctpo.sandbox.attacks import Targets, attacks, try_attack

from .test_ladder import NOBODY, as_root, need, run_as_somebody_else

BY_NAME = {f"{attack.kind}: {attack.name}": attack for attack in attacks()}


def reached_goals(names, rung, without):
    """Which attacks reach their goal in a sandbox on a rung without some protections."""
    with pytest.MonkeyPatch.context() as patch, Targets() as targets:
        patch.setattr("ctpo.sandbox.client.fork_servers.RUNGS", (rung,))
        # Time enough for what needs some to get through, also on a busy machine.
        limit = 1.0 if {"resources: computing", "resources: sleeping"} & set(names) else 10.0
        with Sandbox(workers=1, timeout=limit, memory_mb=256, without=without) as sandbox:
            outcomes = {name: try_attack(BY_NAME[name], sandbox, targets) for name in names}
    return {name for name, outcome in outcomes.items() if outcome.reached}


def test_there_are_many_of_every_kind():
    assert len(BY_NAME) == len(attacks()) >= 80
    kinds = Counter(attack.kind for attack in attacks())
    assert set(kinds) == {"network", "files", "processes", "privileges", "remains", "resources"}
    assert min(kinds.values()) >= 10


def test_none_reaches_its_goal_and_the_next_run_is_right():
    with Targets() as targets, Sandbox(workers=2, timeout=1.0, memory_mb=256) as sandbox:
        if sandbox.protections.rung != p.USER_NAMESPACE:
            pytest.skip("promised for the first step of the ladder: " + sandbox.protections.rung)
        for name, attack in BY_NAME.items():
            outcome = try_attack(attack, sandbox, targets)
            assert not outcome.reached, (name, outcome)
            assert outcome.innocent, (name, outcome)
            assert outcome.execution.status != "sandbox-failure", (name, outcome)
        assert sandbox.restarts == 0


@as_root
def test_where_nothing_stops_them_most_reach_it():
    need("setpriv")
    # As nobody, where they can harm nothing. What only root could do fails here, too.
    script = """
from ctpo.sandbox import Sandbox, protections as p
from ctpo.sandbox.client import fork_servers
from ctpo.sandbox.attacks import Targets, attacks, try_attack
fork_servers.RUNGS = (p.LIMITS_ONLY,)
off = set(p.SWITCHES) - {"time-out", "fresh-scratch", "fresh-process"}
with Targets() as targets, Sandbox(
    workers=1, timeout=1.0, memory_mb=256, allow_weak=True, without=off
) as sandbox:
    tried = [attack for attack in attacks() if attack.kind not in ("resources", "remains")]
    print(sum(bool(try_attack(attack, sandbox, targets).reached) for attack in tried))
"""
    assert int(run_as_somebody_else(NOBODY, script)) >= 45


# What is off besides, where another protection would stop the attack as well; what then gets
# through when a protection is off, and does not when it is on.
OFF = [
    ("seccomp", p.USER_NAMESPACE, (), "processes: fork", "privileges: kernel keys"),
    (
        "landlock",
        p.LANDLOCK_ONLY,
        (),
        "files: a file everybody may read",
        "files: the host's accounts",
    ),
    ("landlock", p.USER_NAMESPACE, ("view",), "files: a file everybody may read"),
    ("user-ids", p.USER_NAMESPACE, (), "resources: threads"),
    ("view", p.USER_NAMESPACE, (), "files: its metadata"),
    ("view", p.USER_NAMESPACE, ("landlock",), "files: a file everybody may read"),
    (
        "network-namespace",
        p.USER_NAMESPACE,
        ("seccomp", "landlock"),
        "network: TCP to the host's loopback",
        "network: a UDP packet to the host",
    ),
    (
        "process-namespace",
        p.USER_NAMESPACE,
        ("seccomp", "landlock", "user-ids"),
        "processes: killing a stranger",
    ),
    (
        "capabilities",
        p.USER_NAMESPACE,
        ("seccomp", "landlock", "user-ids"),
        "files: unmounting",
        "privileges: the host's name",
    ),
    ("address-space", p.USER_NAMESPACE, (), "resources: memory at once"),
    ("cpu-time", p.USER_NAMESPACE, ("time-out",), "resources: computing"),
    ("processes", p.USER_NAMESPACE, (), "resources: threads"),
    ("descriptors", p.USER_NAMESPACE, (), "resources: descriptors"),
    ("file-size", p.USER_NAMESPACE, (), "resources: one endless file"),
    ("scratch-size", p.USER_NAMESPACE, (), "resources: disk", "resources: inodes"),
    ("fresh-scratch", p.USER_NAMESPACE, (), "files: a module it leaves is imported by the next"),
    ("fresh-process", p.USER_NAMESPACE, (), "remains: builtins", "remains: a module"),
    ("output-limit", p.USER_NAMESPACE, (), "resources: output"),
    ("time-out", p.USER_NAMESPACE, (), "resources: sleeping"),
    ("environment", p.USER_NAMESPACE, (), "files: the caller's environment handed down"),
]


SECONDS = ("cpu-time", "time-out")  # whose attacks burn or wait for as long as they may


def test_each_protection_can_be_switched_off():
    assert {switch for switch, *_ in OFF} == set(p.SWITCHES)


@as_root
@pytest.mark.parametrize(
    ("switch", "rung", "besides", "names"),
    [
        pytest.param(
            *(switch, rung, besides, names),
            id=f"{switch}-{'-'.join(besides)}",
            marks=[pytest.mark.slow] * (switch in SECONDS),
        )
        for switch, rung, besides, *names in OFF
    ],
)
def test_a_protection_that_is_off_is_missed(switch, rung, besides, names):
    if "capabilities" == switch and os.uname().machine not in ("x86_64", "aarch64"):
        pytest.skip("the attack's system calls are not known here")
    assert not reached_goals(names, rung, besides)
    assert reached_goals(names, rung, {switch, *besides}) == set(names)
