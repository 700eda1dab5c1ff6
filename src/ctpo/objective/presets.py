"""The published combinations of ratio, window and surrogate, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from types import MappingProxyType

from ctpo.objective.objective import Objective
from ctpo.objective.parameters import unknown_name
from ctpo.objective.ratios import (
    CumulativeRatio,
    FullSequenceRatio,
    SequenceGeometricMeanRatio,
    TokenRatio,
)
from ctpo.objective.windows import LogWindow, RatioWindow

PRESETS: Mapping[str, Objective] = MappingProxyType(
    {
        "ctpo": Objective(
            ratio=CumulativeRatio(),
            window=LogWindow(eps_low=0.025, eps_high=0.05, power=0.5, dual_clip=0.05),
        ),
        "ctpo-printed": Objective(
            ratio=CumulativeRatio(),
            window=LogWindow(eps_low=0.025, eps_high=0.05, power=0.5),
        ),
        "grpo": Objective(
            ratio=TokenRatio(),
            window=RatioWindow(clip_low=0.2, clip_high=0.28),
        ),
        "gspo": Objective(
            ratio=SequenceGeometricMeanRatio(),
            window=RatioWindow(clip_low=3e-4, clip_high=4e-4),
        ),
        "full-sequence": Objective(
            ratio=FullSequenceRatio(),
            window=LogWindow(eps_low=0.025, eps_high=0.05, power=0.5, dual_clip=0.05),
        ),
    }
)
"""The presets.

- `ctpo`: CTPO as its public code has it, arXiv 2605.07331: the printed objective and a dual clip.
- `ctpo-printed`: CTPO as its paper prints it: without the dual clip.
- `grpo`: GRPO, arXiv 2402.03300, with the usual unequal sides of DAPO, arXiv 2503.14476.
- `gspo`: GSPO, arXiv 2507.18071, token form.
- `full-sequence`: a baseline, not a published method: `ctpo` with the product over the whole
  response, so that the two differ in the ratio only. Its window widens with H.
"""


def preset(name: str, **overrides: float | None) -> Objective:
    """Return a published objective, some of its parameters changed.

    Args:
        name: A key of `PRESETS`.
        **overrides: Parameters of the preset's choices by their names, e.g. `eps_low=0.03` or
            `dual_clip=None`.

    Returns:
        The objective.

    Raises:
        ValueError: If there is no such preset or parameter (names the nearest), or if a value is
            out of range.
    """
    if name not in PRESETS:
        raise unknown_name("preset", name, PRESETS)
    base = PRESETS[name]
    # Today only windows have parameters.
    valid = [field.name for field in fields(base.window)]
    for key in overrides:
        if key not in valid:
            raise unknown_name(f"parameter of preset {name!r}", key, valid)
    return replace(base, window=replace(base.window, **overrides))
