"""`ctpo sandbox` as a user types it."""

import subprocess
import sys
from pathlib import Path

import pytest

CTPO = Path(sys.executable).parent / "ctpo"


def ctpo(*arguments, stdin=""):
    return subprocess.run(
        [CTPO, "sandbox", *map(str, arguments)], input=stdin, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [
        ("print(input())", 0, "in\n"),
        ("raise SystemExit(3)", 3, ""),
        ("import os; os.abort()", 134, ""),
        ("while True: pass", 124, ""),
        ("bytearray(1 << 31)", 137, ""),
        ("print('x' * 65537)", 153, "x" * 65536),
    ],
)
def test_a_file_runs_and_its_end_is_the_commands(tmp_path, code, exit_code, said):
    path = tmp_path / "program.py"
    path.write_text(code)
    shown = ctpo("run", path, "--timeout", 0.5, stdin="in\n")
    assert (shown.returncode, shown.stdout) == (exit_code, said), shown.stderr


def test_a_program_comes_from_standard_input_too():
    assert ctpo("run", "-", stdin="print(6 * 7)").stdout == "42\n"


def test_a_file_that_is_not_there_is_named(tmp_path):
    shown = ctpo("run", tmp_path / "missing.py")
    assert shown.returncode == 1 and "missing.py" in shown.stderr


@pytest.mark.slow
def test_a_check_tells_what_came_through():
    shown = ctpo("check", "--without", "environment,descriptors")
    assert shown.returncode == 1
    assert "the caller's environment handed down" in shown.stdout
    assert "limits on CPU time" in shown.stdout
    unknown = ctpo("check", "--without", "luck")
    assert unknown.returncode == 1 and "luck" in unknown.stderr
