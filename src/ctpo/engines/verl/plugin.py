"""The plug-in: importing this module makes verl know all that is ours.

verl imports it by itself (entry point `verl.plugins`), by `VERL_USE_EXTERNAL_MODULES`, or because
a part of its configuration names a class of ours as `_target_`.
"""

from __future__ import annotations

from ctpo.engines.verl import (
    advantages,
    agent_loop,  # noqa: F401 - registers itself
    hooks,
    loss,
    parsers,  # noqa: F401 - register themselves
)
from ctpo.engines.verl.beside_trl import hide_trl_from_verl

hide_trl_from_verl()
loss.register()
advantages.register()
hooks.install()
