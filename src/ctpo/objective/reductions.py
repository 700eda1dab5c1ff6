"""From a loss per token to one number.

A sequence without policy tokens is not a sequence: it counts neither above nor below the line, so
padding a batch with empty rows changes nothing. A batch without any policy token reduces to 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from ctpo.objective.parameters import unknown_name

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from torch import Tensor

    from ctpo.objective.named.names import ReductionName


def seq_mean_token_mean(sums: Float[Tensor, " S"], lengths: Int[Tensor, " S"]) -> Float[Tensor, ""]:
    """Mean over sequences of the mean over their tokens: 1/G Σ_i 1/|o_i| Σ_t L_{i,t}.

    Every response weighs the same, whatever its length. Source: GRPO, arXiv 2402.03300; CTPO,
    arXiv 2605.07331.

    Args:
        sums: Sum of the loss over each sequence.
        lengths: Policy tokens of each sequence.

    Returns:
        The reduced loss.
    """
    return (sums / lengths.clamp(min=1)).sum() / _sequences(lengths)


def seq_mean_token_sum(sums: Float[Tensor, " S"], lengths: Int[Tensor, " S"]) -> Float[Tensor, ""]:
    """Mean over sequences of the sum over their tokens: 1/G Σ_i Σ_t L_{i,t}.

    The policy gradient as the theorem has it: no normalisation by length. Divided by a constant
    length this is Dr. GRPO's, arXiv 2503.20783.

    Args:
        sums: Sum of the loss over each sequence.
        lengths: Policy tokens of each sequence.

    Returns:
        The reduced loss.
    """
    return sums.sum() / _sequences(lengths)


def token_mean(sums: Float[Tensor, " S"], lengths: Int[Tensor, " S"]) -> Float[Tensor, ""]:
    """Mean over all tokens of the batch: Σ_i Σ_t L_{i,t} / Σ_i |o_i|.

    Every token weighs the same, so long responses weigh more. Source: DAPO, arXiv 2503.14476.

    Args:
        sums: Sum of the loss over each sequence.
        lengths: Policy tokens of each sequence.

    Returns:
        The reduced loss.
    """
    return sums.sum() / lengths.sum().clamp(min=1)


REDUCTIONS: Mapping[ReductionName, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "seq-mean-token-mean": seq_mean_token_mean,
        "seq-mean-token-sum": seq_mean_token_sum,
        "token-mean": token_mean,
    }
)
"""The reductions by their usual names."""


def reduce(
    sums: Float[Tensor, " S"], lengths: Int[Tensor, " S"], reduction: ReductionName
) -> Float[Tensor, ""]:
    """Reduce the sequences' losses by the name of a reduction.

    Args:
        sums: Sum of the loss over each sequence.
        lengths: Policy tokens of each sequence.
        reduction: A key of `REDUCTIONS`.

    Returns:
        The reduced loss.

    Raises:
        ValueError: If there is no such reduction; names the nearest one.
    """
    if reduction not in REDUCTIONS:
        raise unknown_name("reduction", str(reduction), REDUCTIONS)
    return REDUCTIONS[reduction](sums, lengths)


def _sequences(lengths: Int[Tensor, " S"]) -> Int[Tensor, ""]:
    return (lengths > 0).sum().clamp(min=1)
