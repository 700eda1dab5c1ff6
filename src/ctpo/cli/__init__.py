"""The command line: `ctpo train`, `eval`, `report`, `study` and the other subcommands."""

from __future__ import annotations

import importlib.util
import sys

_NEEDED = ("typer", "rich", "pydantic", "transformers", "trl")
_SANDBOX_NEEDS = ("typer", "rich")


def main() -> None:
    """Run the command line."""
    alone = sys.argv[1:2] == ["sandbox"]
    needed = _SANDBOX_NEEDS if alone else _NEEDED
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"the command line needs {', '.join(missing)}, which the package alone does not bring; "
            f"install ctpo[{'sandbox-server' if alone else 'train'}]"
        )
    from ctpo.cli.app import app

    app()
