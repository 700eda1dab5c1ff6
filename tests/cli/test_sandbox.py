"""`ctpo sandbox` as a user types it."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ctpo.cli.sandbox import app

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


@pytest.mark.parametrize(
    ("file", "more", "said"),
    [
        ("missing.py", [], "missing.py: No such file"),
        (".", [], "Is a directory"),
        ("binary.py", [], "encoding"),
        ("fine.py", ["--timeout", "-1"], "timeout must be positive"),
        ("fine.py", ["--memory-mb", "0"], "memory_mb must be at least 1"),
    ],
)
def test_what_could_not_be_run_exits_as_programs_seldom_do(tmp_path, file, more, said):
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe")
    (tmp_path / "fine.py").write_text("print(1)")
    shown = CliRunner().invoke(app, ["run", str(tmp_path / file), *more])
    assert shown.exit_code == 125 and said in shown.stderr


@pytest.mark.parametrize("port", ["-1", "65536", "99999"])
def test_a_port_that_there_is_not_is_refused_in_words(port):
    shown = CliRunner().invoke(app, ["serve", "--port", port])
    assert shown.exit_code == 2 and isinstance(shown.exception, SystemExit)
    assert "--port" in shown.stderr


@pytest.mark.slow
def test_a_check_tells_what_came_through():
    shown = ctpo("check", "--without", "environment,descriptors")
    assert shown.returncode == 1
    assert "the caller's environment handed down" in shown.stdout
    assert "limits on CPU time" in shown.stdout
    unknown = ctpo("check", "--without", "luck")
    assert unknown.returncode == 1 and "luck" in unknown.stderr


@pytest.mark.parametrize(
    "written",
    [
        "print('\u00e9\u00fc')".encode("utf-8-sig"),
        "# -*- coding: latin-1 -*-\nprint('\u00e9\u00fc')".encode("latin-1"),
        "#!/usr/bin/python\r\n# coding: cp1252\r\nprint('\u00e9\u00fc')".encode("cp1252"),
        "print('\u00e9\u00fc')".encode(),
    ],
)
def test_a_program_is_read_as_python_reads_it(written, tmp_path):
    path = tmp_path / "program.py"
    path.write_bytes(written)
    shown = ctpo("run", path)
    assert (shown.returncode, shown.stdout) == (0, "\u00e9\u00fc\n"), shown.stderr


@pytest.mark.parametrize("written", [b"# coding: klingon\n", b"print('\xe9')"])
def test_a_program_that_cannot_be_read_is_named(written, tmp_path):
    path = tmp_path / "program.py"
    path.write_bytes(written)
    shown = CliRunner().invoke(app, ["run", str(path)])
    assert shown.exit_code == 125 and str(path) in shown.stderr


@pytest.mark.parametrize("option", ["--max-timeout", "--client-timeout"])
@pytest.mark.parametrize("value", ["nan", "inf", "0", "-1"])
def test_a_server_has_no_limit_that_limits_nothing(option, value):
    shown = CliRunner().invoke(app, ["serve", "--port", "0", option, value])
    assert (
        shown.exit_code in (1, 2) and "timeout" in shown.stderr and "Traceback" not in shown.stderr
    )


@pytest.mark.parametrize(
    "limit",
    [
        {"most_seconds": float("nan")},
        {"most_memory_mb": 0},
        {"most_requests": -1},
        {"most_body_bytes": 1 << 30},
    ],
)
def test_limits_are_looked_at_before_any_front_end_is_started_with_them(limit):
    from ctpo.sandbox.http.serve import Limits

    with pytest.raises(ValueError, match="|".join(limit) if "bytes" not in str(limit) else "twice"):
        Limits(**limit)


@pytest.mark.parametrize("place", ["none/s", "file", ".", "s" * 200])
def test_a_socket_that_cannot_be_made_is_named(place, tmp_path):
    (tmp_path / "file").write_text("kept")
    shown = CliRunner().invoke(app, ["serve", "--socket", str(tmp_path / place)])
    assert shown.exit_code == 1 and f"{tmp_path / place}: " in shown.stderr
    assert (tmp_path / "file").read_text() == "kept"


def test_an_address_that_is_none_of_this_machine_is_named(monkeypatch):
    monkeypatch.setenv("CTPO_SANDBOX_TOKEN", "a")
    shown = CliRunner().invoke(app, ["serve", "--host", "192.0.2.1", "--port", "0"])
    assert shown.exit_code == 1 and "192.0.2.1:0: " in shown.stderr
