"""The published names and parameters as types, for those who check theirs before they run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NewType, TypedDict

if TYPE_CHECKING:
    from ctpo.objective.mismatch import Mismatch

# fmt: off
PresetName = Literal[
    "ctpo", "ctpo-printed", "ctpo-fixed", "ctpo-drift-free", "ctpo-exact-kl", "pnpo",
    "full-sequence", "grpo", "dapo", "dr-grpo", "gspo", "gspo-token", "gmpo", "cispo", "sapo",
    "topr", "vespo", "minpro", "cppo",
]
RatioName = Literal[
    "token", "cumulative", "cumulative-geometric-mean", "full-sequence", "sequence-geometric-mean",
    "minimum-prefix",
]
# fmt: on
SurrogateName = Literal["clip", "plain", "cispo", "sapo", "topr", "vespo", "gmpo", "cppo"]
ReductionName = Literal["seq-mean-token-mean", "seq-mean-token-sum", "token-mean"]

OwnPreset = NewType("OwnPreset", str)
"""A name that only the running program knows: `module:name`, or one that was registered."""


class Changes(TypedDict, total=False):
    """The parameters of the published presets; each preset has some of them."""

    eps_low: float
    eps_high: float
    power: float
    dual_clip: float | None
    clip_low: float
    clip_high: float
    delta_low: float
    delta_high: float
    delta_dual: float | None
    tau_pos: float
    tau_neg: float
    k_pos: float
    lambda_pos: float
    k_neg: float
    lambda_neg: float
    delta: float
    delta_budget: float
    gradient: Literal["token-local", "literal"]
    mismatch: Mismatch | None
