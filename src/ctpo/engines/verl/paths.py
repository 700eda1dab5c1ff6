"""Where the files lie that a configuration of verl's names."""

from __future__ import annotations

from pathlib import Path

SEARCH_PATH = "pkg://ctpo.engines.verl.config"
"""What `hydra.searchpath` must hold for `+policy_loss=ctpo`."""

_HERE = Path(__file__).parent
_CONFIG = _HERE / "config"

PATHS: dict[str, Path] = {
    "policy_loss": _CONFIG / "policy_loss" / "ctpo.yaml",
    "agent_loop": _HERE / "agent_loop.yaml",
    "tool": _HERE / "tool.yaml",
}
"""The files by what they configure."""
