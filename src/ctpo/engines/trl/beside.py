"""What TRL adds beside the surrogate, with our loss in the surrogate's place.

KL to a reference, entropy bonus, high-entropy tokens, the routers' loss, the reduction: TRL writes
all of them into the one method that also computes its surrogate. Of a token with weight w and
advantage A, that surrogate is -w A where nothing is clipped. Given the advantage -loss/w it is the
loss, whatever that is, and everything else is TRL's own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ctpo.objective.ratios import CumulativeRatio, FullSequenceRatio, TokenRatio

if TYPE_CHECKING:
    from trl import GRPOConfig

    from ctpo.objective import Objective

Batch = dict[str, Any]

# Weights under which an expectation over π_old's tokens is one over the policy's.
_CORRECTING = (TokenRatio, CumulativeRatio, FullSequenceRatio)
# Beyond this a weight is 0 or infinite for all purposes; float32 ends at e^88.
_LARGEST_LOG_WEIGHT = 60.0


def refuse_kl_correction(objective: Objective, config: GRPOConfig) -> None:
    """Raise if the KL term is to be corrected by a weight that corrects nothing.

    Raises:
        ValueError: Says what to set instead.
    """
    if config.beta and config.use_bias_correction_kl:
        if isinstance(objective.ratio, _CORRECTING):
            return
        raise ValueError(
            f"use_bias_correction_kl is True (TRL's default) and the objective's weight is "
            f"{objective.ratio!r}: times that, the KL term is no unbiased estimate of anything. "
            "Set use_bias_correction_kl=False, or take an objective with a token, cumulative or "
            "full-sequence ratio"
        )


def in_trls_terms(
    batch: Batch,
    loss: Tensor,
    logprobs: Tensor,
    mask: Tensor,
    weights: Tensor | None = None,
) -> Batch:
    """Return a batch for which TRL's surrogate is the loss.

    Args:
        batch: The micro-batch.
        loss: Per token, [B, T].
        logprobs: Of the policy, [B, T], with their graph.
        mask: True on policy tokens, [B, T].
        weights: The objective's w_t, [B, T], to correct the KL term by; None leaves it as it is.

    Returns:
        The batch with the advantages and old log-probabilities that make TRL's ratio w and its
        surrogate the loss. What stands at masked places adds nothing.
    """
    given = batch | {"old_per_token_logps": logprobs, "advantages": -loss}
    if weights is not None:
        # The gradient of w is that of its own token's log-probability, as the surrogate's is.
        log_weight = torch.where(mask, weights.detach(), 1.0).log()
        log_weight = log_weight.clamp(-_LARGEST_LOG_WEIGHT, _LARGEST_LOG_WEIGHT)
        log_weight = log_weight + logprobs - logprobs.detach()
        given["old_per_token_logps"] = logprobs - log_weight
        given["advantages"] = -loss * torch.exp(-log_weight)
    if "ref_per_token_logps" in batch:
        # exp() of a difference at a tool's tokens could be infinite, and infinity times 0 is NaN.
        given["ref_per_token_logps"] = torch.where(
            mask, batch["ref_per_token_logps"], logprobs.detach()
        )
    return given


def leave_clipping_to_the_objective(trainer: Any) -> None:  # noqa: ANN401 - a GRPOTrainer
    """Turn off what TRL's surrogate would do to the loss in its place.

    Args:
        trainer: A `GRPOTrainer` after its construction.
    """
    trainer.epsilon_low = trainer.epsilon_high = math.inf
    # Applied to the loss per token before it gets there, where the advantage is still known.
    trainer.off_policy_mask_threshold = None
