import asyncio
import os
import signal
import sys

import pytest

from ctpo.sandbox import Sandbox, SessionOver


def test_state_stays_from_call_to_call_and_no_further(sandbox):
    with sandbox.session() as one, sandbox.session() as other:
        assert one.run("x = 1\nprint(x)").stdout == "1\n"
        assert one.run("x += 1\ndef f(): return x").status == "success"
        assert one.run("print(f())").stdout == "2\n"
        assert "NameError" in other.run("x").stderr
        assert "NameError" in sandbox.run("x").stderr


def test_the_last_expression_is_shown_if_asked(sandbox):
    with sandbox.session() as session:
        assert session.run("a = 20\na + 1", echo=True).stdout == "21\n"
        assert session.run("a + 1").stdout == ""
        assert session.run("None", echo=True).stdout == ""
        assert session.run("print('x')\n_ * 2", echo=True).stdout == "x\n42\n"
        assert session.run("for i in range(2): i", echo=True).stdout == ""


def test_an_error_leaves_the_session_alive(sandbox):
    with sandbox.session() as session:
        session.run("def f():\n    1 / 0")
        failed = session.run("y = 5\nf()")
        assert (failed.status, failed.return_code) == ("error", 1)
        assert 'File "<call 1>", line 2, in f' in failed.stderr and "1 / 0" in failed.stderr
        exited = session.run("raise SystemExit(3)")
        assert (exited.status, exited.return_code) == ("error", 3)
        assert session.run("b = bytearray(1 << 31)").status == "memory"
        assert session.run("print(y, input())", stdin="in\n").stdout == "5 in\n"
        assert "EOFError" in session.run("input()").stderr


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("while True: pass", "timeout"),
        ("import os; os._exit(4)", "error"),
        ("import os; os.abort()", "error"),
        ("import os; os.closerange(3, 256)", "error"),
    ],
)
def test_what_ends_the_process_ends_the_session(sandbox, code, status):
    with sandbox.session() as session:
        session.run("x = 1")
        assert session.run(code, timeout=0.5).status == status
        assert session.over
        with pytest.raises(SessionOver):
            session.run("x")
    assert sandbox.run("print(1)").stdout == "1\n"


def test_each_call_has_the_limits_of_a_run(sandbox):
    with sandbox.session() as session:
        burn = "import time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass"
        # Together more than one call's own time and CPU time.
        assert {session.run(burn, timeout=1.0).status for _ in range(9)} == {"success"}
        full = session.run("print('x' * 100000)")
        assert full.status == "output-limit" and full.stdout_truncated
        assert session.run("print('again')").stdout == "again\n"


def test_files_stay_in_a_session(sandbox):
    with sandbox.session() as session:
        session.run("open('b', 'w').write(open('a').read() + 'b')", files={"a": "a"})
        assert session.run("print(open('b').read())", collect=["b"]).files == {"b": b"ab"}
        with sandbox.session() as other:
            assert other.run("import os; print(os.listdir())").stdout == "[]\n"


def test_forged_answers_end_a_session_and_reach_nobody_else(sandbox):
    forge = (
        "import os\n"
        "for fd in range(3, 64):\n"
        "    for text in (b'\\0\\0', b'x' * 5000, b'', b'{}'):\n"
        "        try: os.write(fd, text)\n"
        "        except OSError: pass\n"
        "print('forged')\n"
    )
    with sandbox.session() as session, sandbox.session() as other:
        other.run("x = 1")
        session.run(forge)
        assert other.run("print(x)").stdout == "1\n"
        assert sandbox.run("print(1)").stdout == "1\n"


def test_sessions_can_be_used_from_asyncio_and_one_call_at_a_time(sandbox):
    async def main():
        with sandbox.session() as session:
            await session.arun("x = 3")
            slow = session.submit("import time; time.sleep(2)")
            with pytest.raises(RuntimeError, match="one call at a time"):
                session.submit("x")
            await asyncio.wrap_future(slow)
            return (await session.arun("print(x)")).stdout

    assert asyncio.run(main()) == "3\n"


def test_a_call_that_has_ended_makes_room_for_the_next_at_once(sandbox):
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # so that another thread sees every step of the one that answers
    try:
        with sandbox.session() as session:
            for number in range(300):
                future = session.submit(f"print({number})")
                while not future.done():
                    pass
            assert session.run("print('last')").stdout == "last\n"
            ended = session.submit("import os; os._exit(4)")
            while not ended.done():
                pass
            assert session.over
    finally:
        sys.setswitchinterval(before)


def test_more_sessions_than_allowed_are_refused_until_one_is_closed():
    with Sandbox(workers=1, sessions=2) as sandbox:
        one, two = sandbox.session(), sandbox.session()
        assert one.run("print(1)").stdout == two.run("print(1)").stdout == "1\n"
        with pytest.raises(RuntimeError, match="2 sessions are open"):
            sandbox.session()
        one.close()
        with sandbox.session() as three:
            assert three.run("print(3)").stdout == "3\n"


def test_a_killed_server_ends_its_sessions(processes):
    with Sandbox(workers=1) as sandbox, sandbox.session() as session:
        session.run("x = 1")
        pids = processes.tree(processes.server_of(sandbox))
        os.kill(processes.server_of(sandbox), signal.SIGKILL)
        processes.wait_until_gone(pids)
        assert session.run("print(x)").status != "success"
        with pytest.raises(SessionOver):
            session.run("x")
        with sandbox.session() as fresh:
            assert fresh.run("print(2)").stdout == "2\n"
