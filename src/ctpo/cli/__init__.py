"""The command line: `ctpo train`, `eval`, `report`, `study` and the other subcommands.

`ctpo --help` and `ctpo --version` need nothing but the package; a command asks for its extra only.
"""

from __future__ import annotations

import os
import re
import sys
from importlib import metadata

import ctpo

# Which extra a command needs; what an extra consists of, the package's own metadata says.
EXTRAS = {
    "doctor": "cli",
    "init": "cli",
    "verl": "cli",
    "sandbox": "cli",
    "sandbox serve": "sandbox-server",
    "grade": "grading",
    "analyze": "analyze",
    "report": "analyze",
    "runs": "analyze",
    "watch": "analyze",
    "theory": "analyze",
    "eval": "eval",
    "data": "eval",
    "compare": "eval",
    "inspect-log": "eval",
    "lm-eval-log": "eval",
    "study report": "eval",
    "study": "train",
    "plan": "train",
    "theory measure": "train",
    "theory measure-files": "train",
    "train": "train",
}


def main() -> None:
    """Run the command line."""
    words = sys.argv[1:]
    if words == ["--version"]:
        print(ctpo.__version__)
        return
    helps = not words or "--help" in words or "_CTPO_COMPLETE" in os.environ
    command = next((name for n in (2, 1) if (name := " ".join(words[:n])) in EXTRAS), None)
    extra = "cli" if helps or command is None else EXTRAS[command]
    if missing := _missing(extra):
        if helps:
            print(_plain_help())
            return
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        sys.exit(
            f"ctpo {command or words[0]} needs {', '.join(missing[:3])}{more}: "
            f"pip install 'ctpo[{extra}]'"
        )
    from ctpo.cli.app import app
    from ctpo.cli.console import fail

    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here a full disk can still be told of
    except OSError as error:
        code = fail(error).exit_code
        # What could not be written is not tried again at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(code)


def _missing(extra: str) -> list[str]:
    """Return the distributions of an extra that are not installed."""
    missing = []
    for requirement in _requirements("ctpo"):
        text, _, marker = requirement.partition(";")
        if not re.search(rf"extra == ['\"]{extra}['\"]", marker):
            continue
        if own := re.match(r"ctpo\[(.*)\]", text):
            missing += [name for inner in own[1].split(",") for name in _missing(inner)]
        elif found := re.match(r"[\w.-]+", text):
            missing += [] if _is_installed(found[0]) else [found[0]]
    return list(dict.fromkeys(missing))


def _requirements(name: str) -> list[str]:
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:  # run from its source: what is there is not known
        return []


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _plain_help() -> str:
    """Return what can be said without the libraries that draw the help."""
    lines = ["usage: ctpo [--version] [--help] COMMAND ...", ""]
    lines += ["Commands, by the extra they need:"]
    for extra in dict.fromkeys(EXTRAS.values()):
        commands = ", ".join(name for name, needed in EXTRAS.items() if needed == extra)
        lines.append("  pip install {:<24}{}".format(f"'ctpo[{extra}]'", commands))
    return "\n".join([*lines, "", "What a command's options are, it says when its extra is there."])
