import asyncio
import contextlib
import gc
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import pytest

from ctpo.sandbox import Sandbox, SandboxUnavailable, probe
from tests.waiting import PATIENCE, aeventually, eventually

SOURCE = Path(__file__).resolve().parents[2] / "src"


def sandbox_files(pid=None):
    prefix = f"ctpo-sandbox-{pid or os.getpid()}-"
    return {name for name in os.listdir(tempfile.gettempdir()) if name.startswith(prefix)}


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


def held():
    """What this process holds of all that a sandbox could leave behind."""
    gc.collect()  # what other tests left could go at any moment
    links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if "ctpo" in line]
    return Counter(
        [os.readlink(link) for link in links if os.path.lexists(link)]
        + [*mounts, *sandbox_files(), *(thread.ident for thread in threading.enumerate())]
    )


def test_close_leaves_nothing(processes):
    with Sandbox(workers=1):
        pass  # what is opened once, on first use, is open now
    before = held()
    with Sandbox(workers=3, preload=["json"]) as sandbox:
        sandbox.run_many(["open('x', 'w').write('x'); import time; time.sleep(9)"] * 2, timeout=0.1)
        with sandbox.session() as session:
            session.run("x = 1")
        # Each server, its fork server's two processes, and three children and two held ready.
        pids = set().union(
            *(
                processes.settles(launcher.pid, lambda tree: len(tree) >= 3 + 3 + 2)
                for launcher in sandbox._servers.launchers.values()
            )
        )
        assert not held() <= before
    assert not processes.alive(pids)
    assert held() <= before
    for pid in pids:
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def test_close_ends_what_is_in_flight_or_waiting():
    sandbox = Sandbox(workers=2)
    sandbox.start()
    futures = [sandbox.submit("import time; time.sleep(999)", timeout=1000) for _ in range(4)]
    eventually(lambda: (sandbox.in_flight, sandbox.waiting), lambda seen: seen == (2, 2))
    sandbox.close()
    executions = [future.result(0) for future in futures]
    assert {(e.status, e.failure) for e in executions} == {
        ("sandbox-failure", "the sandbox was closed")
    }


def test_a_killed_server_fails_what_is_in_flight_and_heals(processes):
    with Sandbox(workers=3) as sandbox:
        futures = [sandbox.submit("import time; time.sleep(999)", timeout=1000) for _ in range(3)]
        eventually(lambda: sandbox.in_flight == 3)
        pids = processes.tree(processes.server_of(sandbox))
        os.kill(processes.server_of(sandbox), signal.SIGKILL)
        executions = [future.result(PATIENCE) for future in futures]
        assert {e.status for e in executions} == {"sandbox-failure"}
        assert all(e.failure and e.stdout == "" and e.return_code is None for e in executions)
        assert [e.stdout for e in sandbox.run_many(["print(1)"] * 6)] == ["1\n"] * 6
        processes.wait_until_gone(pids)
        assert sandbox.restarts == 1


def test_a_server_killed_while_idle_is_replaced_unnoticed(processes):
    with Sandbox(workers=2) as sandbox:
        for restarts in (1, 2):
            pids = processes.tree(processes.server_of(sandbox))
            os.kill(processes.server_of(sandbox), signal.SIGKILL)
            processes.wait_until_gone(pids)
            eventually(lambda: sandbox.restarts, restarts.__eq__)
            assert sandbox.run("print(1)").stdout == "1\n"


def test_a_killed_fork_server_fails_its_own_programs_only(processes):
    with Sandbox(workers=16) as sandbox:  # two fork servers
        killed, other = processes.fork_servers(processes.server_of(sandbox), 2)
        futures = [sandbox.submit("import time; time.sleep(999)", timeout=1000) for _ in range(16)]
        # Eight programs, and the children of ten slots.
        running = processes.settles(other, lambda tree: len(tree) == 1 + 8 + 10)
        os.kill(killed, signal.SIGKILL)
        done = eventually(lambda: [f for f in futures if f.done()], lambda done: len(done) == 8)
        assert {future.result().status for future in done} == {"sandbox-failure"}
        assert processes.tree(other) == running and sandbox.in_flight == 8
        for future in futures:
            future.cancel()
        assert [e.stdout for e in sandbox.run_many(["print(1)"] * 32)] == ["1\n"] * 32
        assert sandbox.restarts == 0


def test_children_killed_while_they_wait_are_replaced_unnoticed(processes):
    with Sandbox(workers=2) as sandbox:
        sandbox.run("")
        (fork_server,) = processes.fork_servers(processes.server_of(sandbox))
        processes.settles(fork_server, lambda tree: len(tree) == 5)
        for pid in (killed := processes.tree(fork_server) - {fork_server}):
            os.kill(pid, signal.SIGKILL)
        processes.settles(fork_server, lambda tree: len(tree) == 5 and not tree & killed)
        assert [e.stdout for e in sandbox.run_many(["print(1)"] * 6)] == ["1\n"] * 6


def test_a_program_killed_from_outside_is_no_failure_of_its_own(processes):
    with Sandbox(workers=1) as sandbox:
        (fork_server,) = processes.fork_servers(processes.server_of(sandbox))
        future = sandbox.submit("import time; time.sleep(999)", timeout=1000)
        killed = set()

        def ended():
            for pid in processes.tree(fork_server) - {fork_server}:
                killed.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return future.done()

        eventually(ended)
        assert future.result().status == "sandbox-failure"
        assert "outside" in str(future.result().failure)
        # The last wave may have hit those that came in their place, and would end the next program.
        processes.settles(fork_server, lambda tree: len(tree) == 4 and not tree & killed)
        assert sandbox.run("print(1)").stdout == "1\n"


def test_a_killed_cell_takes_its_program_along_and_leaves_nothing(processes):
    with Sandbox(workers=1) as sandbox:
        sandbox.run("")
        (fork_server,) = processes.fork_servers(processes.server_of(sandbox))
        processes.settles(fork_server, lambda tree: len(tree) == 4)
        for _ in range(5):
            cells = processes.tree(fork_server) - {fork_server}
            future = sandbox.submit("import time; time.sleep(999)", timeout=1000)
            processes.settles(fork_server, lambda tree: len(tree) == 5)
            (program,) = processes.tree(fork_server) - {fork_server} - cells
            for pid in cells:
                os.kill(pid, signal.SIGKILL)
            execution = future.result(PATIENCE)
            assert (execution.status, execution.stdout) == ("sandbox-failure", "")
            assert "outside" in str(execution.failure)
            processes.settles(
                fork_server, lambda tree, old={*cells, program}: len(tree) == 4 and not tree & old
            )
            assert sandbox.run("print(1)").stdout == "1\n"
        assert sandbox.restarts == 0


def test_a_cancelled_program_ends_and_makes_room(processes):
    with Sandbox(workers=1) as sandbox:
        running = sandbox.submit("import time; time.sleep(999)", timeout=1000)
        waiting = sandbox.submit("import time; time.sleep(999)", timeout=1000)
        assert waiting.cancel() and sandbox.waiting == 0
        assert running.cancel()
        assert sandbox.submit("print(1)").result(PATIENCE).stdout == "1\n"
        assert sandbox.in_flight == 0


def test_asyncio_gets_the_same_answers_and_cancels():
    async def main():
        async with Sandbox(workers=2) as sandbox:
            outputs = await asyncio.gather(*(sandbox.arun(f"print({i})") for i in range(10)))
            many = await sandbox.arun_many([f"print({i})" for i in range(10)])
            task = asyncio.create_task(sandbox.arun("import time; time.sleep(999)", timeout=1000))
            await aeventually(lambda: sandbox.in_flight)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            after = await sandbox.arun_many(["print(1)"] * 2)
            return outputs, many, after

    outputs, many, after = asyncio.run(main())
    assert [e.stdout for e in outputs] == [e.stdout for e in many] == [f"{i}\n" for i in range(10)]
    assert [e.stdout for e in after] == ["1\n"] * 2


def test_who_asks_for_too_much_waits_before_asking():
    with Sandbox(workers=1, most_waiting=2) as sandbox:
        hold = sandbox.submit("import time; time.sleep(999)", timeout=1000)
        eventually(lambda: sandbox.in_flight == 1)
        futures = [sandbox.submit("print(1)") for _ in range(2)]
        third = threading.Thread(target=lambda: futures.append(sandbox.submit("print(1)")))
        third.start()
        third.join(0.2)
        assert third.is_alive() and sandbox.waiting == 2
        hold.cancel()
        third.join()
        assert [future.result(PATIENCE).stdout for future in futures] == ["1\n"] * 3


def test_a_killed_owner_leaves_nothing(processes):
    script = (
        "import os, time\n"
        "from ctpo.sandbox import Sandbox\n"
        "sandbox = Sandbox(workers=2)\n"
        "sandbox.start()\n"
        "for _ in range(2): sandbox.submit('import time; time.sleep(60)', timeout=50)\n"
        "while sandbox.in_flight < 2: time.sleep(0.01)\n"
        # A fork of the owner keeps every connection open.
        "if os.fork() == 0: time.sleep(60); os._exit(0)\n"
        "print(sandbox._servers.launchers['bare'].pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment, process_group=0
    ) as owner:
        assert owner.stdout is not None
        # The server, its fork server's two processes, two programs, and the children of four slots.
        pids = processes.settles(int(owner.stdout.readline()), lambda tree: len(tree) == 3 + 2 + 4)
        owner.kill()
        processes.wait_until_gone(pids)
        os.killpg(owner.pid, signal.SIGKILL)  # its fork
    assert not sandbox_files(owner.pid)


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
    before = processes.children(os.getpid())
    protections = probe()
    assert not protections.weak
    assert any("network" in name for name in protections.in_force)
    assert any("system calls" in name for name in protections.in_force)
    assert all(name in str(protections) for name in protections.in_force + protections.missing)
    assert processes.children(os.getpid()) == before


UNDER_A_LIMIT = """
from ctpo.sandbox import Sandbox
with Sandbox(workers=1) as sandbox, sandbox.session() as session:
    left = sandbox.run("open('a', 'w').write('left')", collect=["a"])
    print(left.status, left.files, session.run("x = 42").status, session.run("print(x)").stdout)
"""


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        (resource.RLIMIT_CPU, 200),
        (resource.RLIMIT_CPU, 20),
        (resource.RLIMIT_AS, 4 << 30),
        (resource.RLIMIT_FSIZE, 1 << 20),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 32),
    ],
)
def test_a_hard_limit_of_whoever_starts_it_takes_nothing_away(kind, most):
    result = subprocess.run(
        [sys.executable, "-c", UNDER_A_LIMIT],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        preexec_fn=lambda: resource.setrlimit(kind, (most, most)),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert result.stdout.split() == ["success", "{'a':", "b'left'}", "success", "42"], result.stderr
