"""From a loss per token to one number.

A row without policy tokens is not a sequence: it counts neither above nor below the line, so
padding a batch with empty rows changes nothing. A batch without any policy token reduces to 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from ctpo.objective.parameters import unknown_name

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


def seq_mean_token_mean(
    per_token: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """Mean over sequences of the mean over their tokens: 1/G Σ_i 1/|o_i| Σ_t L_{i,t}.

    Every response weighs the same, whatever its length. Source: GRPO, arXiv 2402.03300; CTPO,
    arXiv 2605.07331.

    Args:
        per_token: Loss per token.
        mask: True on policy tokens.

    Returns:
        The reduced loss.
    """
    return _mean_over_sequences(_row_sums(per_token, mask) / mask.sum(dim=1).clamp(min=1), mask)


def seq_mean_token_sum(
    per_token: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """Mean over sequences of the sum over their tokens: 1/G Σ_i Σ_t L_{i,t}.

    The policy gradient as the theorem has it: no normalisation by length.

    Args:
        per_token: Loss per token.
        mask: True on policy tokens.

    Returns:
        The reduced loss.
    """
    return _mean_over_sequences(_row_sums(per_token, mask), mask)


def token_mean(per_token: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, ""]:
    """Mean over all tokens of the batch: Σ_i Σ_t L_{i,t} / Σ_i |o_i|.

    Every token weighs the same, so long responses weigh more. Source: DAPO, arXiv 2503.14476.

    Args:
        per_token: Loss per token.
        mask: True on policy tokens.

    Returns:
        The reduced loss.
    """
    return _row_sums(per_token, mask).sum() / mask.sum().clamp(min=1)


REDUCTIONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "seq-mean-token-mean": seq_mean_token_mean,
        "seq-mean-token-sum": seq_mean_token_sum,
        "token-mean": token_mean,
    }
)
"""The reductions by their usual names."""


def reduce(
    per_token: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"], reduction: str
) -> Float[Tensor, ""]:
    """Reduce a loss per token by the name of a reduction.

    Args:
        per_token: Loss per token.
        mask: True on policy tokens.
        reduction: A key of `REDUCTIONS`.

    Returns:
        The reduced loss.

    Raises:
        ValueError: If there is no such reduction; names the nearest one.
    """
    if reduction not in REDUCTIONS:
        raise unknown_name("reduction", reduction, REDUCTIONS)
    return REDUCTIONS[reduction](per_token, mask)


def _row_sums(per_token: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, per_token, 0.0).sum(dim=1)


def _mean_over_sequences(per_sequence: Tensor, mask: Tensor) -> Tensor:
    return per_sequence.sum() / mask.any(dim=1).sum().clamp(min=1)
