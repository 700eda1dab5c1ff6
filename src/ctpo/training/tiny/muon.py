"""Muon in float32, for processors.

Torch's own computes in bfloat16, which a processor without such instructions emulates: there that
was six sevenths of a training step of the tiny model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

_MOMENTUM = 0.95
_ITERATIONS = 5
# Of a quintic that takes singular values in (0, 1] into about (0.7, 1.2) in five iterations.
_A, _B, _C = 3.4445, -4.7750, 2.0315


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalized: W ← W - lr · 0.2 √max(rows, columns) · UVᵀ of the momentum's SVD.

    The factor gives an update the root mean square of AdamW's. Sources: Muon, by K. Jordan et al.;
    the factor: arXiv 2502.16982.
    """

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Take one step with the gradients that there are."""
        for group in self.param_groups:
            for weight in group["params"]:
                state, gradient = self.state[weight], weight.grad
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].lerp_(gradient, 1 - _MOMENTUM)
                update = orthogonalized(gradient.lerp(momentum, _MOMENTUM))  # Nesterov's look ahead
                weight.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(weight.shape)))


def orthogonalized(matrix: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """Return about UVᵀ of the matrix's singular value decomposition, by Newton and Schulz."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.T if tall else x
