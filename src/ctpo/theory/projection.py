"""Random projections of gradients: memory grows neither with parameters nor trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

DIMENSIONS = 2039
"""A prime: the columns of weight matrices, whose widths are even, spread over all places."""


class Sketch:
    """A linear map of P parameters to k numbers that keeps inner products in expectation.

    Every coordinate gets a random sign and is added to one of k places: E[z·z'] = g·g', with a
    standard deviation of about √(2/k)·|g||g'|, 3 % at the usual k. A count sketch, Charikar, Chen
    and Farach-Colton 2002; its memory is that of one more copy of the parameters, for the signs.
    """

    def __init__(
        self, parameters: Sequence[Tensor], *, dimensions: int = DIMENSIONS, seed: int = 0
    ) -> None:
        if dimensions < 1:
            raise ValueError(f"dimensions is {dimensions}; at least 1 is needed")
        generator = torch.Generator().manual_seed(seed)
        self.dimensions = dimensions
        self._signs = [
            (torch.randint(0, 2, (p.numel(),), generator=generator) * 2 - 1).to(p.device, p.dtype)
            for p in parameters
        ]
        # Small tensors would all land on the first places.
        self._shifts = [
            int(torch.randint(0, dimensions, (1,), generator=generator)) for _ in parameters
        ]

    def __call__(self, gradients: Sequence[Tensor]) -> Float[Tensor, "E k"]:
        """Return the sketches of E gradients.

        Args:
            gradients: One tensor [E, ...] per parameter, E gradients stacked in front.
        """
        rows = len(gradients[0])
        total = torch.zeros(rows, self.dimensions, device=gradients[0].device)
        for gradient, signs, shift in zip(gradients, self._signs, self._shifts, strict=True):
            signed = gradient.reshape(rows, -1) * signs
            short = -signed.shape[1] % self.dimensions
            padded = torch.nn.functional.pad(signed, (0, short))
            folded = padded.view(rows, -1, self.dimensions).sum(1)
            total += folded.roll(shift, 1)
        return total


# Numbers held at once for the gradients of one trajectory.
_AT_ONCE = 64_000_000


def trajectory_gradients(
    logprobs: Float[Tensor, " T"],
    parameters: Sequence[Tensor],
    coefficients: Float[Tensor, "E T"],
    sketch: Sketch,
) -> tuple[Float[Tensor, " E"], Float[Tensor, "E k"]]:
    """Return |g|² and the sketch of g = Σ_t c_t ∇log π(a_t|s_t) for E estimators.

    As many estimators go through the backward pass at once as fit, so that at most 64 million
    numbers, or one gradient if that is more, are held.

    Args:
        logprobs: log π_θ(a_t|s_t) of one trajectory, with their graph.
        parameters: What the gradient is taken by.
        coefficients: c_t of each estimator.
        sketch: For these parameters.
    """
    size = sum(p.numel() for p in parameters)
    step = max(1, _AT_ONCE // size)
    squares, sketches = [], []
    for start in range(0, len(coefficients), step):
        part = coefficients[start : start + step]
        gradients = torch.autograd.grad(
            logprobs, parameters, part.to(logprobs.dtype), is_grads_batched=True, retain_graph=True
        )
        squares.append(sum(g.flatten(1).double().square().sum(1) for g in gradients))
        sketches.append(sketch(gradients))
    return torch.cat([torch.as_tensor(s) for s in squares]).cpu(), torch.cat(sketches).cpu()
