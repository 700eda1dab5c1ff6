"""Each command needs its own extra and nothing else, and says so where that is not installed."""

import json
import subprocess
import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from ctpo.cli import EXTRAS
from ctpo.cli.app import app
from tests.installing.extras import EXTRAS as DECLARED
from tests.installing.extras import ROOT, requirements

# Nothing but the standard library, and the metadata of an installed ctpo.
ALONE = """
import json, sys
sys.path += sys.argv[1:3]
from ctpo.cli import main
for words in json.loads(sys.argv[3]):
    sys.argv = ["ctpo", *words]
    try:
        main()
    except SystemExit as end:
        print(end)
"""

# What is not of the extra is not found, whether it is imported or looked for.
WITHIN = """
import json, sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder
allowed = {"ctpo", *sys.stdlib_module_names}

class Within:
    find_distributions = PathFinder.find_distributions

    @staticmethod
    def find_spec(name, path=None, target=None):
        if (top := name.partition(".")[0]) in allowed or top.startswith("_sysconfigdata"):
            return PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Within]
for names, code in json.loads(sys.argv[1]):
    allowed |= set(names)
    exec(code, {})
assert "trl" not in sys.modules
"""

RUN = """
import sys
from ctpo.cli.app import app
for words in {commands}:
    try:
        app(words)
    except SystemExit as end:
        assert not end.code, words
"""
IMPORTS = "from ctpo.cli.app import app\nimport {modules}"

# One process for each: extras, the later with the earlier, and what is to be had with them.
PROCESSES = [
    [
        ("cli", RUN.format(commands=[["verl", "paths"], ["theory", "exact", "--help"]])),
        ("cli", "import ctpo.doctor, ctpo.sandbox.attacks"),
        (EXTRAS["grade"], RUN.format(commands=[["grade", "FILE"]])),
        (EXTRAS["grade"], "import ctpo.grading.worker, ctpo.grading.symbolic"),
        (EXTRAS["sandbox serve"], "import ctpo.sandbox.http.serve"),
    ],
    [
        ("objective", "import ctpo; ctpo.preset('ctpo')"),
        (EXTRAS["analyze"], IMPORTS.format(modules="ctpo.report, ctpo.report.theory, ctpo.theory")),
        (
            EXTRAS["eval"],
            "import ctpo.evaluation.regrade, ctpo.evaluation.inspect_log, ctpo.training.problems, "
            "ctpo.training.evaluating.request, ctpo.studies.report",
        ),
    ],
]


def modules(extra, known):
    """What can be imported where an extra is installed: its packages and those they need."""
    wanted = [Requirement(text) for text in requirements(extra)]
    found: dict[str, set[str]] = {}
    while wanted:
        one = wanted.pop()
        name = one.name.lower().replace("_", "-")
        if one.extras <= found.get(name, set()) and name in found:
            continue
        found[name] = found.get(name, set()) | one.extras
        for text in metadata.requires(one.name) or []:
            below = Requirement(text)
            extras = [{"extra": extra} for extra in (*found[name], "")]
            if below.marker is None or any(below.marker.evaluate(extra) for extra in extras):
                wanted.append(below)
    return [module for name in found for module in known.get(name, ())]


@pytest.fixture(scope="module")
def known():
    """The modules of each package."""
    known: dict[str, list[str]] = {}
    for module, packages in metadata.packages_distributions().items():
        for package in packages:
            known.setdefault(package.lower().replace("_", "-"), []).append(module)
    return known


@pytest.mark.parametrize("steps", PROCESSES, ids=["without torch", "with torch"])
def test_commands_import_nothing_outside_their_extra(steps, known, tmp_path):
    file = tmp_path / "answers.jsonl"
    file.write_text('{"answer": "3", "gold": "3"}\n')
    given = [(modules(extra, known), code.replace("FILE", str(file))) for extra, code in steps]
    subprocess.run([sys.executable, "-c", WITHIN, json.dumps(given)], check=True, cwd=tmp_path)


def test_the_package_alone_answers_and_names_each_commands_extra(tmp_path):
    info = tmp_path / "ctpo-0.dist-info"
    info.mkdir()
    lines = [f'{text}; extra == "{extra}"' for extra, texts in DECLARED.items() for text in texts]
    lines = [f"Requires-Dist: {line}\n" for line in lines if line.count(";") == 1]
    (info / "METADATA").write_text(f"Name: ctpo\nVersion: 0\n{''.join(lines)}")
    words = [["--version"], ["--help"], [], *(command.split() for command in EXTRAS), ["nosuch"]]
    shown = subprocess.run(
        [sys.executable, "-S", "-c", ALONE, str(ROOT / "src"), str(tmp_path), json.dumps(words)],
        capture_output=True,
        text=True,
        check=True,
    )
    version, *rest = shown.stdout.splitlines()
    assert version[0].isdigit()
    answers = rest[-len(EXTRAS) - 1 :]
    for (command, extra), answer in zip([*EXTRAS.items(), ("nosuch", "cli")], answers, strict=True):
        assert answer.startswith(f"ctpo {command} needs rich, typer"), answer
        assert answer.endswith(f": pip install 'ctpo[{extra}]'"), answer
        if extra == "analyze":
            assert "torch" in answer and "trl" not in answer
    page = "\n".join(rest)
    assert all(f"'ctpo[{extra}]'" in page for extra in EXTRAS.values())


def test_each_command_says_which_extra_it_needs():
    commands = {command.name for command in app.registered_commands}
    commands |= {group.name for group in app.registered_groups}
    assert commands == {command.split()[0] for command in EXTRAS}
