"""The plug-in: importing this module makes verl know all that is ours.

verl imports it by itself (entry point `verl.plugins`), by `VERL_USE_EXTERNAL_MODULES`, or because
a part of its configuration names a class of ours as `_target_`.

verl loads plug-ins in the middle of its own import, in every process it starts, also in those that
neither train nor generate. So nothing of verl is imported here: each part waits for the module of
verl that it belongs to.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable

from wrapt import register_post_import_hook

from ctpo.engines.verl import hooks
from ctpo.engines.verl.beside_trl import hide_trl_from_verl

PARTS = (
    ("verl.experimental.agent_loop.agent_loop", "agent_loop"),
    ("verl.experimental.agent_loop.tool_parser", "episodes.parsers"),
    ("verl.trainer.ppo.core_algos", "advantages"),
    ("verl.trainer.ppo.core_algos", "loss"),
)
"""Modules of verl, and the modules of ours that add to their registries when they are imported."""


def modules() -> list[str]:
    """Return the modules of verl that something of ours goes into."""
    return list(dict.fromkeys([*(module for module, _ in PARTS), *hooks.WRAPPED]))


def _load(part: str) -> Callable[[object], object]:
    return lambda _: importlib.import_module(f"ctpo.engines.verl.{part}")


try:
    hide_trl_from_verl()
    for module, part in PARTS:
        register_post_import_hook(_load(part), module)
    hooks.install()
except Exception:
    # verl hides it at DEBUG and goes on.
    logging.getLogger(__name__).exception("verl has to do without ctpo, whose plug-in fails")
    raise
