"""The command line: `ctpo train`, `ctpo eval`, `ctpo report`, `ctpo theory`, `ctpo doctor`."""

from __future__ import annotations

import importlib.util
import sys

_NEEDED = ("typer", "rich", "pydantic", "transformers", "trl")


def main() -> None:
    """Run the command line."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"the command line needs {', '.join(missing)}, which the package alone does not bring; "
            "install ctpo[train]"
        )
    from ctpo.cli.app import app

    app()
