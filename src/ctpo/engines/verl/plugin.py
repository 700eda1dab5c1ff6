"""The plug-in: importing this module makes verl know all that is ours.

verl imports it by itself (entry point `verl.plugins`), by `VERL_USE_EXTERNAL_MODULES`, or because
a part of its configuration names a class of ours as `_target_`.
"""

from __future__ import annotations

import logging


def _load() -> None:
    from ctpo.engines.verl import advantages, agent_loop, hooks, loss, parsers
    from ctpo.engines.verl.beside_trl import hide_trl_from_verl

    hide_trl_from_verl()
    loss.register()
    advantages.register()
    agent_loop.register()
    parsers.register()
    hooks.install()


try:
    _load()
except Exception:
    # verl hides it at DEBUG and goes on.
    logging.getLogger(__name__).exception("verl has to do without ctpo, whose plug-in fails")
    raise
