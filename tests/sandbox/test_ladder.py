"""What is left where the machine allows less."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ctpo.sandbox import Sandbox, SandboxUnavailable
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

# To be run before the sandbox starts: the kernel then seems to have no landlock.
NO_LANDLOCK = """
import struct
from ctpo.sandbox.jail import kernel
def instruction(code, value, on_true=0, on_false=0):
    return struct.pack("=HBBI", code, on_true, on_false, value)
kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
kernel.FilterCode(
    instruction(0x20, 0) + instruction(0x15, 444, 0, 1) + instruction(0x06, 0x5005F)
    + instruction(0x06, 0x7FFF0000)
).install()
"""


def sandbox_files():
    prefix = f"ctpo-sandbox-{os.getpid()}-"
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith(prefix)}


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
        timeout=900,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]
# A plain unprivileged container: no capabilities and no way to namespaces.
CONTAINED = ["unshare", "--user", "--map-root-user", "sh", "-c"]
CONTAINED += ['echo 0 > /proc/sys/user/max_user_namespaces && exec "$0" "$@"']
CONTAINED += ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]

REFUSALS = """
import os
def out(sandbox, code):
    execution = sandbox.run(code)
    assert execution.status == "success", execution
    return execution.stdout.strip()
attempt = "try:\\n    {}\\n    print('done')\\nexcept OSError:\\n    print('refused')"
def check_refusals(sandbox, server):
    for call in (
        f"import socket; socket.create_connection({server.getsockname()}, 1)",
        "open('/etc/passwd')",
        "open('/usr/x', 'w')",
        "import os; os.listdir('/proc')",
        f"import os; os.kill({os.getpid()}, 9)",
        "import os; os.kill(1, 15)",
        "import os; os.kill(os.getppid(), 15)",
        "import os; os.fork()",
        "import os; os.chmod(os.__file__, 0o666)",
        "import resource; resource.prlimit(1, resource.RLIMIT_NOFILE, (64, 64))",
        "import os; os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
        "import os; os.sched_setaffinity(os.getppid(), {0})",
        "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0 or open('/nowhere')",
        "import ctypes; assert ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0 or open('/nowhere')",
    ):
        assert out(sandbox, attempt.format(call)) == "refused", call
    assert sandbox.run("while True: pass", timeout=0.3).status == "timeout"
    assert sandbox.run("bytearray(1 << 31)").status == "memory"
    assert out(sandbox, "print(2)") == "2"
    assert sandbox.restarts == 0
"""


def need(*programs):
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} (util-linux) is missing")


@as_root
def test_an_unprivileged_caller_gets_namespaces_too():
    need("setpriv")
    script = f"""
import os, socket
from ctpo.sandbox import Sandbox
{REFUSALS}
assert os.geteuid() == 65534
with Sandbox(workers=1, timeout=1.0) as sandbox, socket.create_server(("127.0.0.1", 0)) as server:
    assert not sandbox.protections.weak
    assert sandbox.protections.rung == {p.USER_NAMESPACE!r}
    missing = [name.split(":")[0] for name in sandbox.protections.missing]
    assert missing == [{p.PROCESS_LIMIT!r}, {p.OWN_USER!r}], missing
    check_refusals(sandbox, server)
print("ok")
"""
    assert run_as_somebody_else(NOBODY, script) == "ok\n"


@as_root
@pytest.mark.parametrize("prefix", [NOBODY, CONTAINED], ids=["nobody", "contained"])
def test_without_namespaces_landlock_and_the_filter_hold(prefix):
    need("setpriv", "unshare")
    script = f"""
import socket
from ctpo.sandbox import Sandbox
from ctpo.sandbox.client import fork_servers
{REFUSALS}
fork_servers.RUNGS = fork_servers.RUNGS if {prefix is CONTAINED} else fork_servers.RUNGS[2:]
with Sandbox(workers=1, timeout=1.0) as sandbox, socket.create_server(("127.0.0.1", 0)) as server:
    assert not sandbox.protections.weak
    assert sandbox.protections.rung == {p.LANDLOCK_ONLY!r}
    check_refusals(sandbox, server)
print("ok")
"""
    assert run_as_somebody_else(prefix, script) == "ok\n"


@as_root
def test_without_namespaces_and_landlock_it_refuses_unless_weak_is_allowed():
    need("setpriv", "unshare")
    script = f"""
import os, tempfile
from ctpo.sandbox import Sandbox, SandboxUnavailable, probe
def sandbox_files():
    prefix = f"ctpo-sandbox-{{os.getpid()}}-"
    return {{name for name in os.listdir(tempfile.gettempdir()) if name.startswith(prefix)}}
files = sandbox_files()
{NO_LANDLOCK}
try:
    Sandbox(workers=1).start()
except SandboxUnavailable as error:
    print("refused")
    assert "unshare" in str(error) and "landlock" in str(error), error
with Sandbox(workers=2, timeout=1.0, memory_mb=128, allow_weak=True) as sandbox:
    assert sandbox.protections.weak
    assert {p.READ_ONLY_VIEW!r} in str(sandbox.protections.missing)
    assert {p.LIMITS!r} in sandbox.protections.in_force
    assert sandbox.run("print(1)").stdout == "1\\n"
    assert sandbox.run("while True: pass").status == "timeout"
    assert sandbox.run("bytearray(1 << 30)").status == "memory"
    assert sandbox.run("import os; print(os.listdir())").stdout == "[]\\n"
assert probe().weak
assert sandbox_files() <= files
print("ok")
"""
    assert run_as_somebody_else(CONTAINED, script) == "refused\nok\n"


@as_root
@pytest.mark.parametrize("filtered", [True, False], ids=["filtered", "unfiltered"])
@pytest.mark.parametrize("rung", p.RUNGS)
def test_every_rung_runs_programs_and_cleans_up(monkeypatch, processes, rung, filtered):
    monkeypatch.setattr("ctpo.sandbox.client.fork_servers.RUNGS", (rung,))
    files = sandbox_files()
    sandbox = Sandbox(
        workers=2, timeout=1.0, allow_weak=True, without=() if filtered else ["seccomp"]
    )
    if rung == p.LANDLOCK_ONLY and not filtered:
        with pytest.raises(SandboxUnavailable):
            sandbox.start()
        return
    with sandbox:
        server = processes.server_of(sandbox)
        if not filtered:  # then programs may fork, and what they leave must not stay
            executions = sandbox.run_many([DAEMON] * 2)
            assert {e.status for e in executions} == {"success"}
            # The server, and two fork servers with one child each, of which a process namespace
            # makes two.
            settled = 1 + 2 * (3 if rung in (p.USER_NAMESPACE, p.ROOT_NAMESPACES) else 2)
            processes.settles(server, lambda tree: len(tree) == settled)
        statuses = [
            sandbox.run(code).status
            for code in ("print(1)", "1 / 0", "while True: pass", "x = bytearray(1 << 30)")
        ]
        assert statuses == ["success", "error", "timeout", "memory"]
        left = "import os; open('x', 'w'); print(os.listdir())"
        assert {e.stdout for e in sandbox.run_many([left] * 6)} == {"['x']\n"}
        names = set(sandbox.protections.in_force)
        missing = {name.split(":")[0] for name in sandbox.protections.missing}
        split = {name.split(":")[0] for name in names}
        assert split | missing == {name.split(":")[0] for name in p.ALL} and not split & missing
        assert (p.READ_ONLY_VIEW in names) == (rung in (p.USER_NAMESPACE, p.ROOT_NAMESPACES))
        assert (p.SYSTEM_CALLS in names) == filtered
        assert sandbox.protections.weak == (rung == p.LIMITS_ONLY)
        before = processes.tree(server)
    processes.wait_until_gone(before)
    assert sandbox_files() <= files
