"""What is left where the machine allows less."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ctpo.sandbox import Sandbox
from ctpo.sandbox import protections as p

SOURCE = Path(__file__).resolve().parents[2] / "src"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")

DAEMON = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(60)
    os._exit(0)
time.sleep(0.1)
print(os.getuid())
"""

# Each process starts the next and ends, for ten seconds: who kills one at a time comes too late.
CHAIN = """
import os, time
started = time.monotonic()
while time.monotonic() < started + 10:
    if os.fork():
        os._exit(0)
"""


def sandbox_files():
    return {name for name in os.listdir(tempfile.gettempdir()) if "ctpo-sandbox" in name}


def run_as_somebody_else(prefix, script):
    """Run a script with an interpreter that everybody may use."""
    interpreters = [sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"]
    # It must be able to start itself: setpriv passes the right to read anything on to one exec.
    test = (
        "import subprocess, sys; assert sys.version_info >= (3, 11);"
        "subprocess.run([sys.executable, '-c', 'import json'], check=True)"
    )
    for interpreter in filter(os.path.exists, interpreters):
        trial = subprocess.run([*prefix, interpreter, "-c", test], capture_output=True, cwd="/")
        if trial.returncode == 0:
            break
    else:
        pytest.skip(f"no Python 3.11 that runs under {prefix[0]}: {trial.stderr.decode()}")
    done = subprocess.run(
        [*prefix, interpreter, "-c", script],
        capture_output=True,
        text=True,
        cwd="/",
        timeout=60,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@as_root
def test_an_unprivileged_caller_gets_namespaces_too():
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv (util-linux) is missing")
    prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]
    script = f"""
import os, resource, socket, sys
from ctpo.sandbox import Sandbox
assert os.geteuid() == 65534
with Sandbox(workers=1, timeout=1.0) as sandbox, socket.create_server(("127.0.0.1", 0)) as server:
    def out(code):
        execution = sandbox.run(code)
        assert execution.status == "success", execution
        return execution.stdout.strip()
    assert not sandbox.protections.weak
    missing = [name.split(":")[0] for name in sandbox.protections.missing]
    assert missing == [{p.OWN_USER!r}, {p.SYSTEM_CALLS!r}, {p.MEMORY_SUM!r}], missing
    attempt = "try:\\n    {{}}\\n    print('done')\\nexcept OSError:\\n    print('refused')"
    for call in (
        f"import socket; socket.create_connection({{server.getsockname()}}, 1)",
        "open('/etc/passwd')",
        "open('/usr/x', 'w')",
        "import os; os.listdir('/proc')",
        f"import os; os.kill({{os.getpid()}}, 9)",
        "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0 or open('/nowhere')",
        "import ctypes; assert ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0 or open('/nowhere')",
    ):
        assert out(attempt.format(call)) == "refused", call
    # The cell has the program's user id here: signals must not reach it, and other harm must
    # not reach the next program.
    for number in (2, 9, 15, 19):
        out(f"import os; os.kill(1, {{number}})")
    assert out("print(1)") == "1"
    out("import resource as r; r.prlimit(1, r.RLIMIT_NOFILE, (64, 64))")
    assert out("import resource as r; print(r.getrlimit(r.RLIMIT_NOFILE)[0] > 64)") == "True"
    sandbox.run("import os; os.setpriority(os.PRIO_PROCESS, 1, 19)")
    sandbox.run("import os; os.sched_setaffinity(1, {{0}})")
    assert out("import os; print(os.nice(0), len(os.sched_getaffinity(0)))") == (
        f"0 {{len(os.sched_getaffinity(0))}}"
    )
    bomb = "import os\\nwhile True:\\n    try: os.fork()\\n    except OSError: pass"
    assert sandbox.run(bomb, timeout=0.3).status == "timeout"
    assert sandbox.run("while True: pass", timeout=0.3).status == "timeout"
    assert out("print(2)") == "2"
    assert sandbox.restarts == 0
print("ok")
"""
    assert run_as_somebody_else(prefix, script) == "ok\n"


@as_root
def test_without_namespaces_and_user_ids_it_refuses_unless_weak_is_allowed():
    if shutil.which("setpriv") is None or shutil.which("unshare") is None:
        pytest.skip("setpriv and unshare (util-linux) are missing")
    # A plain unprivileged container: no capabilities and no way to namespaces.
    prefix = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    prefix += ['echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" "$@"']
    prefix += ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    script = f"""
import os, tempfile
from ctpo.sandbox import Sandbox, SandboxUnavailable, probe
def sandbox_files():
    return {{name for name in os.listdir(tempfile.gettempdir()) if "ctpo-sandbox" in name}}
files = sandbox_files()
try:
    Sandbox(workers=1).start()
except SandboxUnavailable as error:
    print("refused")
    assert "unshare" in str(error) and "no user id to lend" in str(error), error
with Sandbox(workers=2, timeout=1.0, memory_mb=128, allow_weak=True) as sandbox:
    assert sandbox.protections.weak
    assert {p.NO_NETWORK!r} in str(sandbox.protections.missing)
    assert {p.LIMITS!r} in sandbox.protections.in_force
    assert sandbox.run("print(1)").stdout == "1\\n"
    assert sandbox.run("while True: pass").status == "timeout"
    assert sandbox.run("bytearray(1 << 30)").status == "memory"
    assert sandbox.run({DAEMON!r}).status == "success"
    assert sandbox.run("import os; print(os.listdir())").stdout == "[]\\n"
assert probe().weak
assert sandbox_files() <= files
print("ok")
"""
    assert run_as_somebody_else(prefix, script) == "refused\nok\n"


@as_root
@pytest.mark.parametrize("rung", p.RUNGS)
def test_every_rung_runs_programs_and_cleans_up(monkeypatch, processes, rung):
    monkeypatch.setattr("ctpo.sandbox.pool.RUNGS", (rung,))
    files = sandbox_files()
    with Sandbox(workers=2, timeout=1.0, allow_weak=True) as sandbox:
        while any(slot.cell is None for slot in sandbox._slots._free):
            sandbox.run_many(["import time; time.sleep(0.2)"] * 2)
        server = processes.server_of(sandbox)
        before = processes.tree(server)
        executions = sandbox.run_many([DAEMON] * 2)
        assert {e.status for e in executions} == {"success"}
        assert processes.tree(server) == before
        if rung != p.LIMITS_ONLY:  # which does not promise this
            assert {e.status for e in sandbox.run_many([CHAIN] * 4)} == {"success"}
            assert processes.tree(server) == before
        users = {e.stdout for e in executions}
        if rung == p.USER_ID:
            assert len(users) == 2 and "0\n" not in users
        statuses = [
            sandbox.run(code).status
            for code in ("print(1)", "1 / 0", "while True: pass", "x = bytearray(1 << 30)")
        ]
        assert statuses == ["success", "error", "timeout", "memory"]
        left = "import os; open('x', 'w'); print(os.listdir())"
        assert {e.stdout for e in sandbox.run_many([left] * 6)} == {"['x']\n"}
        names = set(sandbox.protections.in_force)
        missing = {name.split(":")[0] for name in sandbox.protections.missing}
        assert names | missing == set(p.ALL) and not names & missing
        assert (p.NO_NETWORK in names) == (rung in (p.USER_NAMESPACE, p.ROOT_NAMESPACES))
        assert sandbox.protections.weak == (rung == p.LIMITS_ONLY)
    assert not processes.wait_until_gone(before, 1.0)
    assert sandbox_files() <= files
