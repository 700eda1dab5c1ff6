"""Nonsense on the sandbox's own channels: it harms whoever sends it, and nobody else."""

import array
import gc
import json
import os
import random
import socket
import threading
from functools import partial

import pytest

from ctpo.sandbox import Program, Sandbox, SessionOver, wire
from ctpo.sandbox.archive import pack
from ctpo.sandbox.client.connection import Connection
from ctpo.sandbox.client.dispatcher import Dispatcher
from ctpo.sandbox.client.job import Job
from tests.waiting import PATIENCE, eventually

# Of a session, whose process keeps the channel to its fork server while it runs what it is told.
FIND_LINK = """
import array, os, random, socket, stat, struct, threading, time
def is_socket(descriptor):
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False
(number,) = filter(is_socket, range(3, 256))
link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=number)
"""
# One of many things a hostile child could do with it.
ABUSE = """
rng = random.Random({seed})
def nonsense():
    size = rng.choice([0, 1, 2, 2, 2, 3, 4, 4, 8, 24, 255, 256, 257, 5000, 100_000])
    return rng.choice([rng.randbytes(size), b"\\0" * size, b"error: " + b"x" * size])
def passing():
    rights = array.array("i", [0, 1, 2] * rng.choice([1, 5]))
    link.sendmsg([nonsense()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
def stealing():
    link.settimeout(0.1)
    link.recv(65536)
for _ in range(rng.randrange(1, 6)):
    try:
        rng.choice([
            lambda: os.write(number, nonsense()),
            lambda: os.write(number, nonsense()),
            lambda: [os.write(number, b"\\0\\0") for _ in range(9)],
            lambda: link.shutdown(rng.choice([0, 1, 2])),
            lambda: os.close(number),
            lambda: os.dup2(1, number),
            passing,
            stealing,
        ])()
    except OSError:
        pass
print("abused")
"""


def test_a_session_that_writes_nonsense_to_its_fork_server_harms_itself_alone():
    with Sandbox(workers=2, timeout=5.0) as sandbox, sandbox.session() as neighbour:
        neighbour.run("total = 0")
        for seed in range(25):
            with sandbox.session() as hostile:
                calls = [FIND_LINK + ABUSE.format(seed=seed), "print('next')", "print('last')"]
                for code in calls:
                    try:
                        future = hostile.submit(code, timeout=1.0)
                    except SessionOver:
                        break
                    # Its own outcome is what it makes of it, but there is one.
                    execution = future.result(PATIENCE)
                    assert execution.status != "success" or not execution.failure
            answer = neighbour.run(f"total += {seed}\nprint(total)")
            assert answer.stdout == f"{sum(range(seed + 1))}\n", (seed, answer)
            assert sandbox.run(f"print({seed})").stdout == f"{seed}\n"
        assert sandbox.restarts == 0


def test_a_session_that_answers_and_never_reads_does_not_hold_up_the_others():
    flood = """
os.set_blocking(number, True)
def answer():
    while True:
        os.write(number, b"\\0\\0")
threading.Thread(target=answer, daemon=True).start()
time.sleep(999)
"""
    with Sandbox(workers=2) as sandbox, sandbox.session() as neighbour:
        neighbour.run("x = 1")
        with sandbox.session() as hostile:
            calls = 0
            while not hostile.over and calls < 1500:
                hostile.submit(FIND_LINK + flood if not calls else "1", timeout=99).result(PATIENCE)
                calls += 1
            assert hostile.over, "as many calls unread as its channel can hold, and more"
        assert neighbour.submit("print(x)").result(PATIENCE).stdout == "1\n"


def right_answer(header):
    return {
        "id": header["id"],
        "status": "success",
        "return_code": 0,
        "wall_seconds": 0.5,
        "own_seconds": 0.5,
        "cpu_seconds": 0.5,
        "peak_memory_bytes": 1,
        "failure": None,
        "over": True,
    }


def nonsense(rng, header) -> tuple[bytes, bytes | None]:
    """A message that no fork server sends, and what is in the file that comes with it, if any."""
    answer = right_answer(header)
    good = json.dumps(answer).encode()
    kind = rng.randrange(7)
    if kind == 0:
        return rng.randbytes(rng.choice([1, 2, 100, 5000])), None
    if kind == 1:
        return good[: rng.randrange(1, len(good))], None
    if kind == 2:
        return b" " * (1 << 17) + good, None  # longer than any message
    if kind == 3:
        return rng.choice([b"[]", b"null", b"1", b"{}", b"[" * 100_000, b'"\\ud800"']), None
    if kind == 4:
        del answer[rng.choice([key for key in answer if key not in ("failure", "over")])]
        answer["over"] = False
    elif kind == 5:
        key = rng.choice(list(answer))
        answer[key] = rng.choice([[], {}, "no", -1, 1 << 40, float("nan"), float("inf"), "\ud800"])
        if key == "return_code" or isinstance(answer[key], (int, str)):
            answer["unknown"] = 1  # a number or a text may be right where it is
    else:
        packed = pack({"a": b"12345"})
        broken = [b"", b"\xff", packed[:-1], packed + b"x", packed.replace(b'"a"', b'"/"')]
        return good, rng.choice(broken)
    return json.dumps(answer).encode(), None


class Hostile:
    """The other end of fork servers' connections: echoes programs, or answers nonsense."""

    def __init__(self):
        self.rng = random.Random(0)
        self.share = 0.2
        self.threads = []

    def connect(self, connection: Connection) -> socket.socket:
        ours, theirs = wire.pair()
        self.threads.append(threading.Thread(target=self._serve, args=(theirs,)))
        self.threads[-1].start()
        connection.usable = True
        return ours

    def _serve(self, connection):
        with connection:
            while True:
                try:
                    header, descriptors = wire.receive(connection)
                except (EOFError, OSError):
                    return
                given = dict(zip(header["given"], descriptors, strict=True))
                message, content, rights = json.dumps(right_answer(header)).encode(), None, []
                if self.rng.random() < self.share:
                    message, content = nonsense(self.rng, header)
                else:
                    os.write(given["stdout"], os.pread(given["code"], 1000, 0))
                if content is not None:
                    rights = [os.memfd_create("files")]
                    os.write(rights[0], content)
                ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", rights))]
                try:
                    connection.sendmsg([message], ancillary if rights else [])
                except OSError:
                    return
                finally:
                    for descriptor in [*descriptors, *rights]:
                        os.close(descriptor)


def echoed(dispatcher, count):
    """How many programs were echoed and how many failed; nothing else may be."""
    jobs = [Job(Program(str(i)), timeout=60.0, flow=i % 3, lane="bare") for i in range(count)]
    for job in jobs:
        dispatcher.submit(job)
    failed = 0
    for job in jobs:
        execution = job.future.result(PATIENCE)
        if execution.status == "sandbox-failure":
            failed += 1
            assert execution.failure and execution.stdout == ""
        else:
            assert (execution.status, execution.stdout) == ("success", job.program.code)
    return count - failed, failed


def test_a_fork_server_that_answers_nonsense_is_replaced_and_its_programs_fail():
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    hostile = Hostile()
    dispatcher = Dispatcher(4, 4096, 10_000, hostile.connect)
    dispatcher.start()
    try:
        for number in range(2):
            dispatcher.add(Connection("bare", number, 3))
        right, failed = echoed(dispatcher, 600)
        assert right and failed
        hostile.share = 0.0
        assert echoed(dispatcher, 50) == (50, 0)
        assert dispatcher.in_flight == 0 and dispatcher.waiting == 0
    finally:
        dispatcher.close()
    for thread in hostile.threads:
        thread.join(60)
    assert len(os.listdir("/proc/self/fd")) <= before


def replaced(sandbox, launcher):
    return sandbox._servers.launchers["bare"] is not launcher


@pytest.mark.parametrize("server", ["fork server", "zygote"])
def test_a_server_that_is_told_nonsense_is_replaced(server):
    rng = random.Random(1)
    with Sandbox(workers=2) as sandbox:
        for _ in range(5):
            header: wire.Header = {
                "id": 1 << 40,
                "session": None,
                "first": True,
                "collect": [],
                "given": [],
            }
            header |= {"timeout": 1.0, "seed": 0, "echo": False, "memory_bytes": None}
            header[rng.choice(list(header))] = rng.choice([None, "no", [], -1, 1 << 70])
            message = rng.choice(
                [
                    json.dumps(header).encode(),
                    json.dumps(header).encode()[: rng.randrange(1, 100)],
                    rng.randbytes(rng.choice([1, 100, 5000])),
                    b" " * (1 << 17) + b"{}",
                    b"[" * 100_000,
                ]
            )
            if server == "zygote":
                told = sandbox._servers.launchers["bare"]
                told._connection.send(message)
                eventually(partial(replaced, sandbox, told))
            else:
                link = sandbox._dispatcher._connections[0].link
                assert link is not None
                link.send(message)

            def answer():
                execution = sandbox.submit("print(7)").result(PATIENCE)
                if execution.status == "sandbox-failure":
                    assert execution.stdout == ""
                return execution

            execution = eventually(answer, lambda e: e.status != "sandbox-failure")
            assert (execution.status, execution.stdout) == ("success", "7\n")
            eventually(lambda: sandbox._dispatcher._connections[0].link)
