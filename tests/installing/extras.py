"""What each extra brings into an empty environment.

`make extras` installs them all, which takes minutes, and writes the table of docs/installing.md.
"""

import functools
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
MEASURED = ("", "objective", "sandbox-server", "grading", "analyze", "eval", "train", "verl")
"""Those that users choose among; "" is the package alone."""


def requirements(extra):
    """The requirements of an extra, those of the extras that it builds on among them."""
    found = []
    for text in EXTRAS[extra] if extra else PROJECT["dependencies"]:
        if own := re.fullmatch(r"ctpo\[(.*)\]", text):
            found += [each for inner in own[1].split(",") for each in requirements(inner)]
        else:
            found.append(text)
    return found


@dataclass(frozen=True)
class Installed:
    """An environment and what is in it."""

    bin: Path
    packages: list[str]
    megabytes: int


def build(folder):
    """Build the source distribution, and from it the wheel, and return both."""
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (archive,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return archive, wheel


def empty():
    """The environment variables without those that lend an environment what is not in it."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def install(extra, wheel, folder):
    """Install a wheel with an extra, in the versions of constraints.txt, and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin/python"]
    what = [f"ctpo[{extra}] @ {wheel.as_uri()}" if extra else str(wheel)]
    if any(text.startswith("torch>") for text in requirements(extra)):
        # Named with its version it is found as a build for processors, where an index has one.
        what += re.findall("^torch==.*$", (ROOT / "constraints.txt").read_text(), re.M)
    run = functools.partial(subprocess.run, check=True, stdout=subprocess.PIPE, env=empty())
    run([*pip, "install", "-q", "-c", ROOT / "constraints.txt", *what])
    listed = run([*pip, "list", "--format=json"])
    packages = [f"{one['name']} {one['version']}" for one in json.loads(listed.stdout)]
    files = (file for file in (folder / "lib").rglob("*") if file.is_file())
    size = sum(file.stat().st_size for file in files)
    return Installed(folder / "bin", [p for p in packages if p[:5] != "ctpo "], round(size / 1e6))


def table():
    """The table of docs/installing.md, measured now."""
    lines = ["| extra | MB | packages |", "|---|--:|---|"]
    with tempfile.TemporaryDirectory() as folder:
        _, wheel = build(Path(folder))
        for extra in MEASURED:
            found = install(extra, wheel, Path(folder) / (extra or "alone"))
            names = ", ".join(package.partition(" ")[0] for package in found.packages)
            label = f"`[{extra}]`" if extra else "none"
            packages = f"{len(found.packages)}: {names}" if names else "0"
            lines.append(f"| {label} | {found.megabytes} | {packages} |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


if __name__ == "__main__":
    page = ROOT / "docs/installing.md"
    head, _, rest = page.read_text().partition("<!-- extras -->\n")
    _, _, tail = rest.partition("<!-- end -->")
    page.write_text(f"{head}<!-- extras -->\n{table()}\n<!-- end -->{tail}")
