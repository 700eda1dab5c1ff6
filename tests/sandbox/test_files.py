import pytest

from ctpo.sandbox import Sandbox, archive
from ctpo.sandbox.jail.plan import SCRATCH_BYTES, SCRATCH_INODES


def test_files_go_in_and_come_out(sandbox):
    execution = sandbox.run(
        "text = open('in/a.txt').read()\nopen('out.bin', 'wb').write(text.encode() + b'\\xff')",
        files={"in/a.txt": "ä"},
        collect=["out.bin", "in/a.txt", "never-made"],
    )
    assert execution.files == {"out.bin": "ä".encode() + b"\xff", "in/a.txt": "ä".encode()}
    assert sandbox.run("import os; print(os.listdir())").stdout == "[]\n"


def test_files_are_collected_after_a_failure_too(sandbox):
    code = "open('x', 'w').write('so far')\nwhile True: pass"
    execution = sandbox.run(code, timeout=0.3, collect=["x"])
    assert (execution.status, execution.files) == ("timeout", {"x": b"so far"})


@pytest.mark.parametrize(
    "code",
    [
        "os.symlink('/proc/self/status', 'x')",
        "os.symlink(os.__file__, 'x')",
        "os.mkdir('d'); os.symlink('d', 'e'); open('d/x', 'w'); os.symlink('/', 'y')",
        "os.mkdir('x')",
        "open('x', 'wb').truncate(1 << 25)",
    ],
)
def test_only_regular_files_of_bounded_size_are_collected(sandbox, code):
    execution = sandbox.run("import os\n" + code, collect=["x", "e/x", "y/etc/hostname"])
    assert execution.status == "success" and execution.files == {}


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x", "", "a\0b", "."])
def test_a_path_that_leads_elsewhere_is_refused(sandbox, name):
    with pytest.raises(ValueError, match="relative path"):
        sandbox.run("", files={name: b""})
    with pytest.raises(ValueError, match="relative path"):
        sandbox.run("", collect=[name])


def test_as_many_files_as_fit_go_in(sandbox):
    full = {"x": bytes(SCRATCH_BYTES)}
    assert sandbox.run("import os; print(os.path.getsize('x'))", files=full).stdout == "67108864\n"
    many = {f"d/{i}": b"" for i in range(SCRATCH_INODES - 2)}
    count = "import os; print(len(os.listdir('d')))"
    assert sandbox.run(count, files=many).stdout == f"{SCRATCH_INODES - 2}\n"


@pytest.mark.parametrize(
    "files",
    [
        {"x": bytes(SCRATCH_BYTES), "y": b"1"},
        {f"{i}": b"" for i in range(SCRATCH_INODES)},
        {"a": b"", "a/b": b""},
        {"x" * 256: b""},
        {"\ud800": b""},
    ],
    ids=["too large", "too many", "one in another", "a long name", "a name that is no text"],
)
def test_files_that_cannot_be_laid_out_are_refused_before_the_run(sandbox, files):
    with pytest.raises(ValueError):
        sandbox.run("", files=files)


def test_an_archive_holds_what_was_put_in():
    files = {"a": b"", "b/c": bytes(range(256)), "ü": b"x" * 1000}
    assert archive.unpack(archive.pack(files)) == files


@pytest.mark.parametrize("preload", [(), ("numpy",)])
def test_same_code_and_seed_give_the_same_output(preload):
    pytest.importorskip("numpy")
    code = (
        "import random, time, locale, os\nimport numpy\n"
        "print(random.random(), numpy.random.rand(), hash('x'), {'a', 'b', 'c', 'd'})\n"
        "print(time.tzname, locale.setlocale(locale.LC_ALL), os.getcwd(), sorted(os.environ))\n"
    )
    outputs: dict[int, set[str]] = {0: set(), 7: set()}
    for _ in range(2):
        with Sandbox(workers=2, preload=preload) as sandbox:
            for seed, seen in outputs.items():
                executions = sandbox.run_many([code] * 4, seed=seed)
                assert {e.status for e in executions} == {"success"}, executions
                seen |= {e.stdout for e in executions}
    assert len(outputs[0]) == len(outputs[7]) == 1
    assert outputs[0] != outputs[7]


def test_packages_work_and_missing_ones_give_pythons_error():
    pytest.importorskip("sympy")
    with Sandbox(workers=1, preload=["numpy", "sympy"], timeout=20.0) as sandbox:
        code = "import sympy, mpmath, numpy; print(sympy.factorint(360), numpy.arange(3).sum())"
        assert sandbox.run(code).stdout == "{2: 3, 3: 2, 5: 1} 3\n"
        missing = sandbox.run("import no_such_package")
        assert "ModuleNotFoundError: No module named 'no_such_package'" in missing.stderr
        assert sandbox.run("print(__import__('sym' + 'py').sqrt(8))").stdout == "2*sqrt(2)\n"
