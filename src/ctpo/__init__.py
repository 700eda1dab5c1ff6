"""CTPO: reinforcement learning for language models whose importance ratio is right.

Names resolve on first use, so that `import ctpo` costs nothing and the sandbox can be started
before torch is loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctpo.commands import evaluate, train
    from ctpo.objective import Objective, preset
    from ctpo.sandbox import Execution, Sandbox
    from ctpo.tir import Trajectory

__version__ = "0.1.0"
__all__ = [
    "Execution",
    "Objective",
    "Sandbox",
    "Trajectory",
    "__version__",
    "evaluate",
    "preset",
    "train",
]

_HOME = {
    "Objective": "ctpo.objective",
    "preset": "ctpo.objective",
    "evaluate": "ctpo.commands",
    "train": "ctpo.commands",
    "Execution": "ctpo.sandbox",
    "Sandbox": "ctpo.sandbox",
    "Trajectory": "ctpo.tir",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute can be anything
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'ctpo' has no attribute {name!r}")
