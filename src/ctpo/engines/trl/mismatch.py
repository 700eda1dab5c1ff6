"""TRL's settings of the weight against the generator, as the weight itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ctpo.objective import Mismatch

if TYPE_CHECKING:
    from trl import GRPOConfig

_PREFIX = "vllm_importance_sampling"


def mismatch_of(config: GRPOConfig) -> Mismatch | None:
    """Return the weight that `vllm_importance_sampling_*` describe; None where there is none.

    Raises:
        ValueError: They describe one that does not bound the loss, or that biases it twice.
    """
    if not (config.use_vllm and config.vllm_importance_sampling_correction):
        return None
    level, _, edge = config.vllm_importance_sampling_mode.partition("_")
    cap, floor = config.vllm_importance_sampling_clip_max, config.vllm_importance_sampling_clip_min
    if cap is None:
        raise ValueError(f"{_PREFIX}_clip_max is None; it must be a number, e.g. 5.0")
    if edge == "truncate" and floor:
        raise ValueError(
            f"{_PREFIX}_clip_min is {floor}; with {_PREFIX}_mode={level}_truncate it must be None: "
            "a small weight is right, a raised one is not"
        )
    return Mismatch(
        level=cast("Any", level), edge=cast("Any", edge), cap=float(cap), floor=float(floor or 0.0)
    )
