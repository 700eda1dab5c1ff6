"""The plug-in: importing this module makes verl know all that is ours.

verl imports it by itself (entry point `verl.plugins`), by `VERL_USE_EXTERNAL_MODULES`, or because
a part of its configuration names a class of ours as `_target_`.
"""

from __future__ import annotations

from ctpo.engines.verl import hooks, loss

loss.register()
hooks.install()
