"""The wheel alone in empty environments: what each extra promises runs there."""

import subprocess
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.installing.extras import ROOT, build, empty, install
from tests.training.test_run import SMALL

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture
def run(tmp_path):
    """Runs a program of an environment, away from the sources, and returns what it printed."""

    def run(installed, *command, expect=0):
        shown = subprocess.run(
            [installed.bin / command[0], *command[1:]],
            cwd=tmp_path,
            env=empty() | {"HF_HUB_OFFLINE": "1", "COLUMNS": "200"},
            capture_output=True,
            text=True,
        )
        assert shown.returncode == expect, shown.stdout + shown.stderr
        assert "Traceback" not in shown.stderr
        return shown.stdout + shown.stderr

    return run


OBJECTIVE = """
import torch, ctpo
logprobs = torch.full((1, 3), -1.0, requires_grad=True)
ones = torch.ones(1, 3)
ctpo.preset("ctpo")(logprobs, -ones, ones[:, 0], ones).mean("token-mean").backward()
print(logprobs.grad.tolist())
"""
TRAIN = [word for change in SMALL for word in ("--set", change)]
NAMES = ["torch", "fastapi", "sympy", "matplotlib", "transformers", "trl", "verl"]
# Of NAMES, what comes (torch brings sympy); commands, exit codes and a piece of what they print.
CASES = {
    "": ([], [(["ctpo", "sandbox", "run", "p.py"], 1, "pip install 'ctpo[cli]'")]),
    "objective": (["torch", "sympy"], [(["python", "-c", OBJECTIVE], 0, "-0.333")]),
    "sandbox-server": (
        ["fastapi"],
        [
            (["ctpo", "sandbox", "run", "p.py"], 0, "42\n"),
            (["ctpo", "doctor"], 1, "programs run isolated"),
            (["python", "-c", "import ctpo.sandbox.http.serve"], 0, ""),
            (["ctpo", "analyze", "a.parquet"], 1, "ctpo analyze needs torch"),
        ],
    ),
    "grading": (["sympy"], [(["ctpo", "grade", "g.jsonl"], 0, "right")]),
    "analyze": (
        ["torch", "sympy", "matplotlib"],
        [
            (["ctpo", "analyze", "a.parquet", "--output", "figures"], 0, "figures/"),
            (["ctpo", "eval", "x"], 1, "pip install 'ctpo[eval]'"),
        ],
    ),
    "eval": (
        ["torch", "sympy", "matplotlib", "transformers"],
        [(["ctpo", "eval", "x"], 1, "x cannot be loaded"), (["ctpo", "train", "tiny"], 1, "trl")],
    ),
    "train": (
        ["torch", "sympy", "matplotlib", "transformers", "trl"],
        [(["ctpo", "train", "tiny", *TRAIN, "--output", "run"], 0, "report.html")],
    ),
    "verl": (
        ["torch", "fastapi", "sympy", "transformers", "verl"],
        [(["ctpo", "verl", "paths"], 0, "search path")],
    ),
}


@pytest.mark.parametrize("extra", CASES)
def test_an_extra_brings_what_its_commands_need_and_no_more(extra, built, run, tmp_path):
    (tmp_path / "p.py").write_text("print(6 * 7)")
    (tmp_path / "g.jsonl").write_text('{"answer": "2\\\\pi/3", "gold": "\\\\frac{2\\\\pi}{3}"}\n')
    lists = {"logprobs": [[-1.0, -2.0]] * 8, "old_logprobs": [[-1.1, -2.0]] * 8}
    more = {"mask": [[1, 1]] * 8, "advantages": [0.5, -0.5] * 4}
    pq.write_table(pa.table(lists | more), tmp_path / "a.parquet")
    installed = install(extra, built[1], tmp_path / "environment")
    here = [name.partition(" ")[0].lower() for name in installed.packages]
    wanted, commands = CASES[extra]
    assert [name for name in NAMES if name in here] == wanted
    for command in (["ctpo", "--help"], ["ctpo", "--version"]):
        run(installed, *command)
    for command, code, piece in commands:
        assert piece in run(installed, *command, expect=code), command
    assert not (tmp_path / "runs").exists() and not (tmp_path / "evals").exists()


def test_the_source_distribution_holds_tests_documentation_and_constraints(built):
    with tarfile.open(built[0]) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout
    kept = {name for name in listed.splitlines() if not name.startswith(".")}
    assert kept - held == set()
