import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ctpo.sandbox import Sandbox, SandboxUnavailable, probe

SOURCE = Path(__file__).resolve().parents[2] / "src"


def sandbox_files():
    return {path for path in os.listdir(tempfile.gettempdir()) if path.startswith("ctpo-sandbox")}


def test_a_sandbox_is_used_between_start_and_close():
    sandbox = Sandbox(workers=1)
    with pytest.raises(RuntimeError, match="not been started"):
        sandbox.run("")
    with pytest.raises(RuntimeError, match="not been started"):
        _ = sandbox.protections
    sandbox.start()
    assert sandbox.run("print(1)").stdout == "1\n"
    with pytest.raises(RuntimeError, match="once"):
        sandbox.start()
    sandbox.close()
    sandbox.close()
    for call in (lambda: sandbox.run(""), lambda: sandbox.run_many([""])):
        with pytest.raises(RuntimeError, match="closed"):
            call()


def test_close_leaves_nothing(processes):
    with Sandbox(workers=1):
        pass  # what is opened once, on first use, is open now
    before = (
        sorted(os.listdir("/proc/self/fd")),
        Path("/proc/self/mounts").read_text(),
        sandbox_files(),
        threading.active_count(),
    )
    with Sandbox(workers=3) as sandbox:
        sandbox.run_many(
            ["import os, time\nif os.fork(): time.sleep(0.2)\ntime.sleep(9)"] * 2, timeout=0.3
        )
        sandbox.run_many(["import time; time.sleep(0.2)"] * 3)
        pids = processes.tree(processes.server_of(sandbox))
        assert len(pids) >= 4
    assert not processes.alive(pids)
    assert before == (
        sorted(os.listdir("/proc/self/fd")),
        Path("/proc/self/mounts").read_text(),
        sandbox_files(),
        threading.active_count(),
    )
    with pytest.raises(ChildProcessError):
        os.waitpid(pids.pop(), os.WNOHANG)


def test_close_ends_what_is_in_flight_or_waiting(processes):
    sandbox = Sandbox(workers=2)
    sandbox.start()
    with ThreadPoolExecutor(4) as threads:
        runs = [
            threads.submit(sandbox.run, "import time; time.sleep(9)", timeout=20) for _ in range(4)
        ]
        time.sleep(0.4)
        started = time.monotonic()
        sandbox.close()
        executions = [run.result() for run in runs]
    assert time.monotonic() - started < 5.0
    assert {(e.status, e.failure) for e in executions} == {
        ("sandbox-failure", "the sandbox was closed")
    }


def test_a_killed_server_fails_what_is_in_flight_and_heals(processes):
    with Sandbox(workers=3) as sandbox, ThreadPoolExecutor(3) as threads:
        runs = [
            threads.submit(sandbox.run, "import time; time.sleep(2); print(1)") for _ in range(3)
        ]
        time.sleep(0.5)
        pids = processes.tree(processes.server_of(sandbox))
        os.kill(processes.server_of(sandbox), signal.SIGKILL)
        started = time.monotonic()
        executions = [run.result() for run in runs]
        assert time.monotonic() - started < 1.0
        assert {e.status for e in executions} == {"sandbox-failure"}
        assert all(e.failure and e.stdout == "" and e.return_code is None for e in executions)
        assert not processes.wait_until_gone(pids)
        assert [e.stdout for e in sandbox.run_many(["print(1)"] * 6)] == ["1\n"] * 6
        assert sandbox.restarts == 1


def test_a_server_killed_while_idle_is_replaced_unnoticed(processes):
    with Sandbox(workers=2) as sandbox:
        sandbox.run_many(["import time; time.sleep(0.1)"] * 2)
        for restarts in (1, 2):
            pids = processes.tree(processes.server_of(sandbox))
            os.kill(processes.server_of(sandbox), signal.SIGKILL)
            assert not processes.wait_until_gone(pids)
            assert sandbox.run("print(1)").stdout == "1\n"
            assert sandbox.restarts == restarts


def test_a_cell_killed_while_idle_is_replaced_unnoticed(processes):
    with Sandbox(workers=1) as sandbox:
        server = processes.server_of(sandbox)
        cell = processes.tree(server) - {server}
        os.kill(max(cell), signal.SIGKILL)
        assert not processes.wait_until_gone(cell)
        assert sandbox.run("print(1)").stdout == "1\n"
        assert sandbox.restarts == 0


def test_a_killed_cell_fails_its_own_program_only(processes):
    with Sandbox(workers=2) as sandbox, ThreadPoolExecutor(2) as threads:
        server = processes.server_of(sandbox)
        slow = "import time; time.sleep(1.5); print(1)"
        runs = [threads.submit(sandbox.run, slow)]
        time.sleep(0.3)
        first = processes.tree(server) - {server}
        runs.append(threads.submit(sandbox.run, slow))
        time.sleep(0.3)
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        assert [run.result().status for run in runs] == ["sandbox-failure", "success"]
        assert sandbox.run_many(["print(1)"] * 2)[1].stdout == "1\n"
        assert sandbox.restarts == 0


def test_a_killed_owner_leaves_nothing(processes):
    files = sandbox_files()
    script = (
        "import os, threading, time\n"
        "from ctpo.sandbox import Sandbox\n"
        "sandbox = Sandbox(workers=2)\n"
        "sandbox.start()\n"
        "daemon = 'import os, time\\nos.fork()\\nos.setsid()\\ntime.sleep(60)'\n"
        "for _ in range(2):\n"
        "    threading.Thread(target=sandbox.run, args=(daemon,), kwargs={'timeout': 50}).start()\n"
        "time.sleep(0.5)\n"
        # A fork of the owner keeps every connection open.
        "if os.fork() == 0: time.sleep(3); os._exit(0)\n"
        "print(sandbox._server.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment
    ) as owner:
        assert owner.stdout is not None
        pids = processes.tree(int(owner.stdout.readline()))
        assert len(pids) >= 5
        owner.kill()
        assert not processes.wait_until_gone(pids, 2.5)
    assert sandbox_files() == files


def test_an_inherited_sandbox_is_refused_and_not_disturbed(sandbox):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            sandbox.run("")
        except RuntimeError as error:
            code = 0 if "fork" in str(error) else 2
        finally:
            sandbox.close()
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert sandbox.run("print(1)").stdout == "1\n"


def test_the_callers_environment_cannot_poison_the_server(monkeypatch, tmp_path):
    for name in ("sitecustomize", "usercustomize", "json", "socket", "ctpo"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "json.py"))
    monkeypatch.setenv("PYTHONHOME", str(tmp_path))
    monkeypatch.setenv("PYTHONHASHSEED", "random")
    monkeypatch.chdir(tmp_path)
    with Sandbox(workers=1, preload=["json"]) as sandbox:
        execution = sandbox.run(f"import json, sys; print({str(tmp_path)!r} in sys.path)")
    assert execution.stdout == "False\n"


def test_what_is_preloaded_is_there_and_nothing_heavy_besides(sandbox):
    code = "import sys; print([m in sys.modules for m in ('json', 'torch', 'numpy', 'sympy')])"
    assert sandbox.run(code).stdout == "[True, False, False, False]\n"


def test_a_module_that_cannot_be_preloaded_is_named():
    with pytest.raises(SandboxUnavailable, match="no_such_module"):
        Sandbox(workers=1, preload=["no_such_module"]).start()


def test_an_interpreter_that_cannot_start_is_reported(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(SandboxUnavailable, match="/nonexistent/python"):
        Sandbox(workers=1).start()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(SandboxUnavailable, match="did not start"):
        Sandbox(workers=1).start()


def test_probing_reports_and_leaves_nothing(processes):
    before = processes.tree(os.getpid())
    protections = probe()
    assert not protections.weak
    assert any("network" in name for name in protections.in_force)
    assert any(name.startswith("allow-list of system calls:") for name in protections.missing)
    assert all(name in str(protections) for name in protections.in_force + protections.missing)
    assert processes.tree(os.getpid()) == before
