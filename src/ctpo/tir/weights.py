"""Whether a model's weights are numbers."""

from __future__ import annotations

from torch import nn


class BrokenWeights(ValueError):
    """Some of a model's weights are NaN or infinite; the message names the first."""


def check_weights(model: nn.Module) -> None:
    """Refuse a model that can say nothing, before somebody looks for the reason elsewhere.

    Raises:
        BrokenWeights: Some of its weights are NaN or infinite.
    """
    broken = [
        name
        for name, weight in model.named_parameters()
        if weight.is_floating_point() and not weight.isfinite().all()
    ]
    if broken:
        weight = model.get_parameter(broken[0]).detach()
        count, kind = int((~weight.isfinite()).sum()), "NaN" if weight.isnan().any() else "infinite"
        raise BrokenWeights(
            f"the model's weights are {kind}: {count:,} of {weight.numel():,} in {broken[0]}, and "
            f"{len(broken)} of its tensors have such. If training did this, go back to a "
            "checkpoint before it and take a lower learning rate or max_grad_norm"
        )
