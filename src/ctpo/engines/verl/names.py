"""Names of the losses in verl's registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ctpo.objective import PRESETS
from ctpo.objective.named.presets import method_of

VERLS_OWN = frozenset({"cispo", "gspo", "sapo"})
"""Presets whose names verl 0.9 has given to losses of its own, which stay verl's."""


def loss_name(preset: str) -> str:
    """Return the name under which verl knows a preset: its own, or `ctpo-<name>` if verl has one.

    Args:
        preset: A key of `ctpo.objective.PRESETS`.

    Raises:
        ValueError: If there is no such preset (names the nearest), or it has the name that another
            one's loss has.
    """
    name, _ = method_of(preset)
    if (other := name.removeprefix("ctpo-")) in VERLS_OWN and other != name:
        raise ValueError(
            f"preset {name!r} has the name of the loss of {other!r} on verl; rename it"
        )
    return f"ctpo-{name}" if name in VERLS_OWN else name


class _PresetOf(Mapping[str, str]):
    """The presets by the names of their losses, also of those that are registered later."""

    def __getitem__(self, loss_mode: str) -> str:
        for preset in PRESETS:
            if loss_name(preset) == loss_mode:
                return preset
        raise KeyError(loss_mode)

    def __iter__(self) -> Iterator[str]:
        return map(loss_name, PRESETS)

    def __len__(self) -> int:
        return len(PRESETS)


PRESET_OF: Mapping[str, str] = _PresetOf()
"""The presets by the names of their losses: `loss_mode` in verl's configuration."""
