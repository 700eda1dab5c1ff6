"""The filter, run by an interpreter of its instructions, on the tables of both machines."""

import errno
import signal
import struct

import pytest

from ctpo.sandbox.jail.seccomp import build, build_own
from ctpo.sandbox.jail.syscalls import MACHINES

ALLOW, KILL = "allow", "kill"
NOTHING = "does nothing and succeeds"
PID = 4321


def decide(program, audit, number, *arguments):
    """What the kernel would answer: classic BPF over struct seccomp_data."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number & 0xFFFFFFFF, audit, 0, *padded)
    accumulator, place = 0, 0
    while True:
        code, on_true, on_false, value = struct.unpack_from("=HBBI", program, 8 * place)
        place += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x54:
            accumulator &= value
        elif code == 0x05:
            place += value
        elif code == 0x15:
            place += on_true if accumulator == value else on_false
        elif code == 0x35:
            place += on_true if accumulator >= value else on_false
        elif code == 0x06:
            if value == 0x7FFF0000:
                return ALLOW
            if value == 0x80000000:
                return KILL
            assert value >> 16 == 5, hex(value)
            return errno.errorcode.get(value & 0xFFFF, NOTHING)
        else:
            raise AssertionError(f"an instruction that is not used: {code:#x}")


@pytest.fixture(params=sorted(MACHINES))
def machine(request):
    return MACHINES[request.param]


def decide_both(machine, number, *arguments, metadata=True):
    """What the kernel would answer a program, which has both parts: the stricter answer."""
    parts = build(machine, metadata=metadata), build_own(machine, PID)
    answers = [decide(part, machine.audit, number, *arguments) for part in parts]
    refusals = [answer for answer in answers if answer != ALLOW]
    return refusals[-1] if refusals else ALLOW


@pytest.fixture
def ask(machine):
    return lambda name, *args: decide_both(machine, machine.calls[name], *args)


CHECKED = {"clone", "prctl", "ioctl", "fcntl", "socketpair", "kill", "tgkill", "prlimit64"}
CHECKED |= {"open", "openat"}


def test_what_is_listed_is_allowed_and_all_else_refused(machine):
    free = {number for name, number in machine.calls.items() if name not in CHECKED}
    checked = {machine.calls[name] for name in CHECKED & machine.calls.keys()}
    for number in range(700):
        answer = decide_both(machine, number)
        if number in free:
            assert answer == ALLOW, number
        elif number in machine.absent:
            assert answer == "ENOSYS", number
        elif number in machine.idle:
            assert answer == NOTHING, number
        elif number in machine.unsupported:
            assert answer in ("EOPNOTSUPP", "ENOTSUP"), number
        elif number not in checked:
            assert answer == "EPERM", number
    assert len(machine.calls) > 100
    assert len(build(machine, metadata=True)) // 8 <= 4096, "the kernel's limit"
    assert len(build_own(machine, PID)) < 400, "the kernel compiles it anew for every program"


def test_another_architectures_calls_end_the_process(machine):
    program = build(machine, metadata=True)
    assert decide(program, 0x40000003, 20) == KILL  # i386
    assert decide(program, machine.audit, 0x40000000 | 39) == KILL  # x32
    assert decide(program, machine.audit, -1) == KILL


def test_threads_can_be_made_and_processes_and_namespaces_not(ask):
    thread = 0x3D0F00
    assert ask("clone", thread) == ALLOW
    assert ask("clone", signal.SIGCHLD) == "EPERM"
    assert ask("clone", 0x4000 | 0x100 | signal.SIGCHLD) == "EPERM"  # vfork
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert ask("clone", thread | flag) == "EPERM"


def test_a_worker_has_the_list_and_can_still_fork_a_sibling(machine):
    program = build(machine, metadata=True)

    def ask_list(name, *arguments):
        return decide(program, machine.audit, machine.calls[name], *arguments)

    sibling = 0x8000 | signal.SIGCHLD  # CLONE_PARENT
    assert ask_list("clone", sibling) == ALLOW
    assert ask_list("clone", signal.SIGCHLD) == "EPERM"
    assert ask_list("clone", sibling | 0x10000000) == "EPERM"  # CLONE_NEWUSER
    assert ask_list("prctl", 22) == ask_list("prctl", 1) == ALLOW
    assert decide_both(machine, machine.calls["clone"], sibling) == "EPERM"
    assert decide_both(machine, machine.calls["prctl"], 22) == "EPERM"


def test_locks_do_nothing_and_succeed(ask):
    assert {ask("fcntl", 3, command) for command in (6, 7, 37, 38)} == {NOTHING}
    assert ask("fcntl", 3, 5) == ask("fcntl", 3, 36) == "EPERM"  # asking for those of others


def test_files_without_a_name_are_refused(ask):
    assert ask("openat", 3, 4, 0o102) == ALLOW
    assert ask("openat", 3, 4, 0o20200002) in ("EOPNOTSUPP", "ENOTSUP")


def test_signals_go_to_itself_only_and_sigkill_to_nobody(ask):
    assert ask("kill", PID, 15) == ask("tgkill", PID, PID, 6) == ALLOW
    assert ask("kill", PID, 9) == ask("tgkill", PID, PID, 9) == "EPERM"
    assert ask("kill", PID, 18) == ask("tgkill", PID, PID, 18) == "EPERM"  # SIGCONT
    for pid in (0, -1 & (1 << 64) - 1, 1, PID + 1, -PID & (1 << 64) - 1):
        assert ask("kill", pid, 15) == ask("tgkill", pid, pid, 15) == "EPERM"


def test_sockets_are_stream_pairs_within_the_process(ask):
    assert ask("socketpair", 1, 1) == ask("socketpair", 1, 1 | 0o2000000 | 0o4000) == ALLOW
    for family, kind in ((1, 2), (1, 5), (2, 1), (16, 3)):
        assert ask("socketpair", family, kind) == "EPERM"


def test_other_arguments_are_looked_at(ask):
    assert ask("prlimit64", 0) == ask("prlimit64", PID) == ALLOW
    assert ask("prlimit64", 1) == "EPERM"
    assert ask("fcntl", 3, 1030) == ask("fcntl", 3, 4) == ALLOW
    assert {ask("fcntl", 3, command) for command in (8, 10, 15, 1024, 1026, 1031, 1033)} == {
        "EPERM"
    }
    assert ask("ioctl", 1, 0x5401) == ALLOW and ask("ioctl", 1, 0x5412) == "EPERM"  # TIOCSTI
    assert ask("prctl", 15) == ALLOW and ask("prctl", 1) == ask("prctl", 4) == "EPERM"


def test_modes_and_times_are_kept_where_mounts_do_not_keep_them(machine):
    for name in ("chmod", "fchmod", "fchmodat", "utimensat"):
        if name in machine.calls:
            assert decide_both(machine, machine.calls[name], metadata=False) == "EPERM"
