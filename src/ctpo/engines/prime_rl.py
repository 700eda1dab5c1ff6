"""CTPO on prime-rl: `import_path = "ctpo.engines.prime_rl.loss"` in `[trainer.loss]`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ctpo.engines.custom_loss import HOLES, RESTARTS, built, weighed


@dataclass
class LossOutputs:
    """What prime-rl reads of a loss: its own class of this name has the same fields."""

    loss: Tensor
    metrics: dict[str, Tensor]


def loss(inputs: Any, **settings: Any) -> LossOutputs:  # noqa: ANN401 - prime-rl's `LossInputs`
    """Return the sum of the loss over a sample, which prime-rl divides by the tokens of the batch.

    There are no log-probs of the trainer from before the update, so the ratio is against the
    inference engine's, `anchor="rollout"`: what that computes differently, and how far its weights
    lie behind, is part of each ratio and grows with t.

    Args:
        inputs: Of one sample, [T] each: `trainer_logprobs`, `inference_logprobs`, `advantages`,
            `loss_mask`, and `loss_weights` or None.
        **settings: `[trainer.loss.kwargs]`: `objective`, the preset's name; `positions` and
            `updates_per_batch`, which is 1 if left out; and the preset's parameters.

    Raises:
        ValueError: A setting is wrong or has no effect, or single tokens were taken out of the
            mask.
    """
    for name in ("anchor", "mismatch_cap"):
        if name in settings:
            raise ValueError(
                f"trainer.loss.kwargs.{name} is {settings[name]!r}; prime-rl has the inference "
                "engine's log-probs only: the ratio is against those, and there is nothing to weigh"
            )
    once = {"updates_per_batch": 1} if "positions" in settings else {}
    weights = inputs.loss_weights
    if weights is not None:
        _check_cuts(inputs)
    out = built(once | settings | {"anchor": "rollout"})(
        [inputs.trainer_logprobs],
        [inputs.advantages],
        [inputs.loss_mask],
        rollout=[inputs.inference_logprobs],
    )
    per_token = out.per_token[0]
    weights = torch.ones_like(per_token) if weights is None else weights
    of_sample = out.sequences()
    return LossOutputs(
        weighed(per_token, weights, inputs.loss_mask),
        {
            "ctpo/log_rho_end": of_sample.log_ratio[0].detach(),
            "ctpo/k3": of_sample.k3[0].detach(),
        },
    )


def _check_cuts(inputs: Any) -> None:  # noqa: ANN401
    """Look for policy tokens of weight 0, which prime-rl takes out of the mask.

    Tokens that the policy did not sample have no log-prob of the inference engine: it is 0 there.
    """
    mask = inputs.loss_mask
    cut = (inputs.loss_weights == 0) & (inputs.inference_logprobs != 0) & ~mask
    places = mask.nonzero().flatten()
    if not len(places) or not cut.any():
        return
    first, last = int(places[0]), int(places[-1])
    if cut[first:last].any():
        raise ValueError(
            f"{int(cut[first:last].sum())} of the policy's tokens between the first and the last "
            f"trained one have weight 0 and are out of loss_mask: {HOLES}. Give every token of a "
            "response a weight, and an advantage other than 0"
        )
    if cut[:first].any():
        warnings.warn(f"the policy's first tokens have weight 0: {RESTARTS}", stacklevel=4)
