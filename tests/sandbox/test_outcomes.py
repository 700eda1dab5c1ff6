import asyncio
import dataclasses
import subprocess
import sys

import pytest

from ctpo.sandbox import Execution, Program, Sandbox
from ctpo.sandbox.program import Options


@pytest.mark.parametrize(
    ("code", "status", "return_code"),
    [
        ("print(1)", "success", 0),
        ("", "success", 0),
        ("import sys; sys.exit()", "success", 0),
        ("raise SystemExit(0)", "success", 0),
        ("import os; os._exit(0)", "success", 0),
        ("1 / 0", "error", 1),
        ("def f(:", "error", 1),
        ("x = 'a\0b'", "error", 1),
        ("print('\ud800')", "error", 1),
        ("import sys; sys.exit(3)", "error", 3),
        ("import sys; sys.exit(-1)", "error", 255),
        ("import sys; sys.exit('no')", "error", 1),
        ("import os; os._exit(7)", "error", 7),
        ("import ctypes; ctypes.string_at(0)", "error", -11),
        ("import os; os.kill(os.getpid(), 9)", "error", 1),
        ("import os; os.kill(os.getpid(), 15)", "error", -15),
        ("import os; os.abort()", "error", -6),
        ("def f(): f()\nf()", "error", 1),
        ("raise KeyboardInterrupt", "error", 130),
        ("while True: pass", "timeout", None),
        ("import time; time.sleep(60)", "timeout", None),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSTOP)", "timeout", None),
        (
            "import signal, time\n"
            "for n in range(1, 32):\n"
            "    if n not in (9, 19): signal.signal(n, signal.SIG_IGN)\n"
            "time.sleep(60)",
            "timeout",
            None,
        ),
        ("b = bytearray(1 << 30)", "memory", None),
        ("x = []\nwhile True: x.append('x' * 1000000)", "memory", None),
        ("x = [[]]\nwhile True: x += x", "memory", None),
        ("while True: print('x' * 1000)", "output-limit", None),
        ("import sys\nwhile True: sys.stderr.write('x' * 1000)", "output-limit", None),
        ("import os\nwhile True: os.write(1, b'x' * 100000)", "output-limit", None),
    ],
)
def test_each_end_has_its_status(sandbox, code, status, return_code):
    # Of its own time; what is to end by itself gets more than it can need.
    execution = sandbox.run(code, timeout=0.7 if status == "timeout" else 60.0)
    assert (execution.status, execution.return_code) == (status, return_code), execution
    assert execution.failure is None


def test_output_is_kept_up_to_the_limit_on_both_streams():
    with Sandbox(workers=1, output_bytes=1000) as sandbox:
        for stream, other in (("stdout", "stderr"), ("stderr", "stdout")):
            write = f"import sys; sys.{stream}.write('x' * "
            exact = sandbox.run(write + "1000)")
            assert (exact.status, getattr(exact, stream)) == ("success", "x" * 1000)
            assert not getattr(exact, f"{stream}_truncated")
            more = sandbox.run(write + "1001)")
            assert (more.status, getattr(more, stream)) == ("output-limit", "x" * 1000)
            assert getattr(more, f"{stream}_truncated")
            assert not getattr(more, f"{other}_truncated")


def test_output_before_a_time_out_is_kept(sandbox):
    code = "import sys\nprint('so far')\nprint('and this', file=sys.stderr)\nwhile True: pass"
    execution = sandbox.run(code, timeout=0.3)
    assert execution.status == "timeout"
    assert (execution.stdout, execution.stderr) == ("so far\n", "and this\n")


def test_a_memory_error_that_is_caught_is_no_failure(sandbox):
    code = "try:\n    bytearray(1 << 30)\nexcept MemoryError:\n    print('caught')"
    execution = sandbox.run(code)
    assert (execution.status, execution.stdout) == ("success", "caught\n")


def test_tracebacks_are_those_of_python(sandbox, tmp_path):
    code = (
        "def inner(x):\n"
        "    return 1 / x\n"
        "\n"
        "try:\n"
        "    inner(0)\n"
        "except ZeroDivisionError as error:\n"
        "    raise ValueError('näh') from error\n"
    )
    path = tmp_path / "program.py"
    for text in (code, "x = (1,\n", "import json; json.loads('{')", "raise SystemExit('bye')"):
        path.write_text(text)
        python = subprocess.run([sys.executable, path], capture_output=True, text=True)
        execution = sandbox.run(text)
        assert execution.stderr == python.stderr.replace(str(path), "<program>")
        assert execution.return_code == python.returncode


def test_the_program_is_main_and_its_source_can_be_inspected(sandbox):
    code = (
        "import inspect, pickle, sys\n"
        "class Point:\n"
        "    pass\n"
        "assert __name__ == '__main__' and sys.modules['__main__'].Point is Point\n"
        "assert type(pickle.loads(pickle.dumps(Point()))) is Point\n"
        "print(sorted(name for name in globals() if not name.startswith('__')))\n"
        "print(inspect.getsource(Point), sys.argv)\n"
    )
    execution = sandbox.run(code)
    assert execution.stdout == (
        "['Point', 'inspect', 'pickle', 'sys']\nclass Point:\n    pass\n ['<program>']\n"
    ), execution


def test_the_end_of_a_program_is_the_end_of_python(sandbox):
    code = (
        "import atexit, threading, time\n"
        "atexit.register(print, 'at exit')\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()\n"
        "print('main', end=' ')\n"
    )
    assert sandbox.run(code).stdout == "main thread\nat exit\n"


def test_a_program_carries_nothing_that_neither_it_nor_the_sandbox_uses(sandbox):
    """Each module is memory to be copied in every fork; some bring a dozen others along."""
    code = "import sys; print({'importlib.abc', 'pathlib', 'tempfile', 'bz2'} & {*sys.modules})"
    assert sandbox.run(code).stdout == "set()\n"
    code = "import sys; print({'math', 're', 'typing', 'dataclasses'} <= {*sys.modules})"
    assert sandbox.run(code).stdout == "True\n"


def test_ordinary_concurrency_works(sandbox):
    code = (
        "import asyncio\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    print(sum(pool.map(abs, range(100))))\n"
        "async def main():\n"
        "    await asyncio.sleep(0.01)\n"
        "    return 'async'\n"
        "print(asyncio.run(main()))\n"
    )
    assert sandbox.run(code).stdout == "4950\nasync\n"


def test_any_text_goes_in_and_any_bytes_come_out(sandbox):
    assert sandbox.run("import sys; sys.stdout.buffer.write(b'a\\xff\\0b')").stdout == "a\ufffd\0b"
    assert sandbox.run("print(input(), input())", stdin="é\nzwei\n").stdout == "é zwei\n"
    assert sandbox.run("import sys; print(repr(sys.stdin.read()))").stdout == "''\n"
    big = "é" * (1 << 20)
    assert (
        sandbox.run("import sys; print(len(sys.stdin.read()))", stdin=big).stdout == f"{1 << 20}\n"
    )
    long = "x = 1\n" * 100_000 + "print(x)"
    assert sandbox.run(long, timeout=20.0).stdout == "1\n"
    assert sandbox.run("import sys; sys.stdout.close(); sys.stderr.close()").status == "success"
    assert sandbox.run("import os; os.closerange(0, 100)").status != "sandbox-failure"


def test_the_measurements_are_those_of_the_program(sandbox):
    # Its own measure of its processor time is the least there is, its start and end come on top.
    busy = "import time\nwhile time.process_time() < 0.4: pass"
    execution = sandbox.run(busy, timeout=60.0)
    assert 0.4 <= execution.cpu_seconds <= execution.own_seconds <= execution.wall_seconds
    asleep = sandbox.run("import time; time.sleep(0.5)", timeout=60.0)
    assert asleep.cpu_seconds < 0.5 <= asleep.own_seconds <= asleep.wall_seconds
    small = sandbox.run("pass").peak_memory_bytes
    large = sandbox.run("x = b'x' * (100 << 20)").peak_memory_bytes
    assert 90 << 20 < large - small < 120 << 20


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"workers": 0}, ValueError),
        ({"workers": 1.5}, TypeError),
        ({"workers": 10_000}, ValueError),
        ({"memory_mb": 0}, ValueError),
        ({"output_bytes": "1"}, TypeError),
        ({"timeout": 0}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"preload": "sympy"}, TypeError),
        ({"preload": ["not a module"]}, ValueError),
    ],
)
def test_a_wrong_argument_is_named(arguments, error):
    with pytest.raises(error, match=next(iter(arguments))):
        Sandbox(**arguments)


@pytest.mark.parametrize(
    ("call", "error", "name"),
    [
        (lambda sandbox: sandbox.run(b"1"), TypeError, "code"),
        (lambda sandbox: sandbox.run("1", stdin=None), TypeError, "stdin"),
        (lambda sandbox: sandbox.run("1", timeout=-1), ValueError, "timeout"),
        (lambda sandbox: sandbox.run("1", timeout=float("inf")), ValueError, "timeout"),
        (lambda sandbox: sandbox.run_many("1"), TypeError, "codes"),
        (lambda sandbox: sandbox.run_many(["1", 2]), TypeError, "codes"),
        (lambda sandbox: sandbox.run_many(["1"], stdin=["", ""]), ValueError, "stdin"),
    ],
)
def test_a_wrong_argument_of_a_run_is_named(sandbox, call, error, name):
    with pytest.raises(error, match=name):
        call(sandbox)


def test_an_execution_cannot_be_changed(sandbox):
    execution = sandbox.run("")
    assert isinstance(execution, Execution)
    with pytest.raises(dataclasses.FrozenInstanceError):
        execution.stdout = "forged"  # type: ignore[misc]


def test_a_program_may_be_given_less_memory_than_the_sandbox_allows(sandbox: Sandbox):
    code = "x = bytearray(100 << 20); print(len(x) >> 20)"
    assert sandbox.run(code, memory_mb=50).status == "memory"
    assert sandbox.run(code, memory_mb=150).stdout == "100\n"
    assert sandbox.run(code).stdout == "100\n"
    assert sandbox.run("print(1)", memory_mb=1).status in ("success", "memory")
    for wrong, error in ((0, ValueError), (257, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="memory_mb"):
            sandbox.run(code, memory_mb=wrong)  # type: ignore[arg-type]


def test_a_program_says_the_same_as_its_fields_given_apart(sandbox):
    options: Options = {"stdin": "x", "files": {"a": "1"}, "collect": ["a"], "memory_mb": 99}
    code = "print(input(), open('a').read())"
    program = Program(code, **options)
    for execution in (
        sandbox.run(program),
        sandbox.run(code, **options),
        sandbox.submit(program).result(60),
        asyncio.run(sandbox.arun(program)),
        *sandbox.run_many([program, program]),
        *asyncio.run(sandbox.arun_many([program])),
    ):
        assert (execution.stdout, execution.files) == ("x 1\n", {"a": b"1"})
    with sandbox.session() as session:
        assert session.run(program).stdout == "x 1\n"
    with pytest.raises(TypeError, match="its own stdin"):
        sandbox.run(program, stdin="y")
