"""Whatever is killed under load, callers get a right answer or a sandbox-failure, never a hang."""

import contextlib
import gc
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from ctpo.sandbox import Sandbox
from tests.waiting import PATIENCE, eventually

MIXED = [
    ("print({i} * 3)", lambda i: ("success", f"{i * 3}\n")),
    ("raise SystemExit({i} % 5 + 1)", lambda i: ("error", "")),
    ("import time; time.sleep(0.02); print({i})", lambda i: ("success", f"{i}\n")),
    ("open('f', 'w').write('{i}'); print(open('f').read())", lambda i: ("success", f"{i}\n")),
]


def run_while(sandbox, saboteur, kills=20, callers=8):
    """Run programs while somebody kills; every answer that is no sandbox-failure is checked."""
    statuses, wrong, stop = [], [], threading.Event()

    def call(number):
        i = number * 100_000
        while not stop.is_set():
            i += 1
            code, expected = MIXED[i % len(MIXED)]
            execution = sandbox.submit(code.format(i=i)).result(PATIENCE)
            statuses.append(execution.status)
            if execution.status != "sandbox-failure":
                if (execution.status, execution.stdout) != expected(i):
                    wrong.append((code, execution))

    threads = [threading.Thread(target=call, args=(n,)) for n in range(callers)]
    for thread in threads:
        thread.start()
    for number in range(kills):
        saboteur()
        if number % 2:  # the next meets what is starting again
            time.sleep(random.uniform(0.05, 0.3))
        else:  # or what is at work
            before = statuses.count("success")
            eventually(lambda: statuses.count("success"), before.__lt__)
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a caller hangs"
    assert not wrong, wrong[:3]


def kill(pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("target", ["children", "fork server", "server"])
def test_what_is_killed_under_load_is_replaced(processes, target):
    with Sandbox(workers=4) as sandbox:

        def saboteur():
            server = processes.server_of(sandbox)
            makers = processes.alive(processes.children(server))
            fork_servers = {pid for maker in makers for pid in processes.children(maker)}
            if target == "server":
                kill([server])
            elif target == "fork server":
                kill(random.sample(sorted(makers | fork_servers), 1) if makers else [])
            else:
                others = processes.tree(server) - {server} - makers - fork_servers
                kill(random.sample(sorted(others), 1) if others else [])

        random.seed(0)
        run_while(sandbox, saboteur)
        assert {e.stdout for e in sandbox.run_many(["print(1)"] * 40)} == {"1\n"}
        if target != "server":
            assert sandbox.restarts == 0


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def state_of(processes, root):
    """Processes, descriptors, mounts and resident kilobytes of a server and its fork server's."""
    tree = processes.tree(root)
    (fork_server,) = processes.fork_servers(root)
    fixed = [root, *processes.alive(processes.children(root)), fork_server]
    resident = 0
    for pid in fixed:
        status = Path(f"/proc/{pid}/status").read_text()
        resident += int(status.split("VmRSS:")[1].split()[0])
    return {
        "processes": len(tree),
        "descriptors": [len(os.listdir(f"/proc/{pid}/fd")) for pid in fixed],
        "mounts": Path(f"/proc/{fork_server}/mounts").read_text().count("\n"),
        "resident": resident,
    }


@pytest.mark.parametrize(
    "count",
    [pytest.param(1_300, marks=pytest.mark.slow), pytest.param(200_000, marks=pytest.mark.long)],
)
def test_many_runs_with_some_hostile_leave_everything_as_it_was(processes, count):
    hostile = [
        "while True: pass",
        "x = bytearray(1 << 31)",
        "while True: print('x' * 1000)",
        "import os\nfor i in range(6000): open(str(i), 'w')",
        "import os; os.fork()",
        "import os; os.abort()",
        "import ctypes; ctypes.string_at(0)",
        "import os; os.closerange(0, 256); os._exit(3)",
    ]
    with Sandbox(workers=4, timeout=0.3) as sandbox:
        root = processes.server_of(sandbox)

        def round_of(size, start):
            codes: list[str] = []
            expected: list[str | None] = []
            for i in range(start, start + size):
                if i % 20 == 7:
                    codes.append(hostile[(i // 20) % len(hostile)])
                    expected.append(None)
                else:
                    codes.append(f"print({i} * {i})")
                    expected.append(f"{i * i}\n")
            executions = sandbox.run_many(codes, timeout=None)
            for code, right, execution in zip(codes, expected, executions, strict=True):
                assert execution.status != "sandbox-failure", execution
                if right is None:
                    assert execution.status != "success", (code, execution)
                else:
                    assert (execution.status, execution.stdout) == ("success", right), execution

        def settled():
            processes.settles(root, lambda tree: len(tree) == 3 + 4 + 2)
            gc.collect()  # what other tests left open could be closed at any moment
            return state_of(processes, root), descriptors()

        round_of(300, 0)
        (before, own_before) = settled()
        for start in range(300, count, 2000):
            round_of(min(2000, count - start), start)
        (after, own_after) = settled()
        assert own_before == own_after
        assert {k: v for k, v in before.items() if k != "resident"} == {
            k: v for k, v in after.items() if k != "resident"
        }
        # Of three processes, after thousands of runs: what allocators keep, not what leaks.
        assert after["resident"] < before["resident"] + 4096, (before, after)
        assert sandbox.restarts == 0
