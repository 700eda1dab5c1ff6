"""The objective as a loss that tinker traces, and runs on its server in one pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from ctpo.objective import Objective
from ctpo.objective.named.names import ReductionName
from ctpo.objective.one_sequence import one_sequence
from ctpo.objective.reductions import reduce

INPUT_RANKS: dict[str, Literal[0, 1, 2]] = dict.fromkeys(
    ("logprobs", "old_logprobs", "advantages", "mask", "weights"), 1
)
"""What `ServiceClient.create_custom_loss` is told of `traced_loss`'s arguments."""

Traced = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]


def traced_loss(objective: Objective) -> Traced:
    """Return a loss for `ServiceClient.create_custom_loss(loss, INPUT_RANKS)`.

    Besides `target_tokens` a datum needs in its `loss_fn_inputs`, of the same length: the sampler's
    `old_logprobs` (the name `logprobs` is the policy's own there), `advantages`, `mask`, which is 1
    on the policy's tokens, and `weights`, the reduction's (`token_weights`). The server adds up the
    data, so the loss of a mini-batch is the sum over it.

    There are no statistics by position on the server: its metrics are scalars. It reports the
    tokens and Σ log r_t, log ρ at the end of a response, as sums.

    Raises:
        ValueError: The objective has a mismatch weight.
    """
    per_token = one_sequence(objective)

    def loss(
        logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, weights: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        losses = per_token(logprobs, old_logprobs, advantages, mask)
        moved = torch.where(mask > 0, logprobs.detach() - old_logprobs, 0.0)
        metrics = {"custom/tokens:sum": (mask > 0).float().sum(), "custom/log_rho:sum": moved.sum()}
        return (losses * weights).sum(), metrics

    return loss


def token_weights(
    masks: Sequence[Tensor], reduction: ReductionName = "seq-mean-token-mean"
) -> list[Tensor]:
    """Return the weight of each token in a reduction over these responses.

    Args:
        masks: 1 on the policy's tokens, [T_i] each: a whole mini-batch.
        reduction: A key of `ctpo.objective.REDUCTIONS`.

    Returns:
        [T_i] each: Σ weight · loss over all tokens is the reduced loss.

    Raises:
        ValueError: There is no such reduction.
    """
    lengths = torch.stack([(mask > 0).sum() for mask in masks])
    # A reduction is linear in the sums of the sequences.
    sums = torch.zeros(len(masks), requires_grad=True)
    (each,) = torch.autograd.grad(reduce(sums, lengths, reduction), sums)
    return [torch.where(mask > 0, weight, 0.0) for mask, weight in zip(masks, each, strict=True)]
