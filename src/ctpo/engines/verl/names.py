"""Names of the losses in verl's registry."""

from __future__ import annotations

from ctpo.objective import PRESETS
from ctpo.objective.parameters import unknown_name

VERLS_OWN = frozenset({"cispo", "gspo", "sapo"})
"""Presets whose names verl 0.9 has given to losses of its own, which stay verl's."""


def loss_name(preset: str) -> str:
    """Return the name under which verl knows a preset: its own, or `ctpo-<name>` if verl has one.

    Args:
        preset: A key of `ctpo.objective.PRESETS`.

    Raises:
        ValueError: If there is no such preset; names the nearest.
    """
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    return f"ctpo-{preset}" if preset in VERLS_OWN else preset


PRESET_OF = {loss_name(preset): preset for preset in PRESETS}
"""The presets by the names of their losses: `loss_mode` in verl's configuration."""
