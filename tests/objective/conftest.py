import pytest
import torch

torch.set_num_threads(1)

_SCALES = {
    "ctpo-fixed": 0.7,
    "pnpo": 0.05,
    "grpo": 0.2,
    "dapo": 0.2,
    "dr-grpo": 0.2,
    "gspo": 0.002,
    "gspo-token": 0.002,
    "gmpo": 0.4,
    "cispo": 1.2,
    "sapo": 0.3,
    "minpro": 1.5,
    "cppo": 0.4,
}


def _make_batch(rows, columns, *, seed=0, scale=0.1, holes=0.3, dtype=torch.float32):
    """Return logprobs (leaf), old_logprobs, advantages [B] of both signs and a mask with holes."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    old_logprobs = -normal(rows, columns).abs()
    logprobs = old_logprobs + scale * normal(rows, columns)
    mask = torch.rand(rows, columns, generator=generator) >= holes
    return (
        logprobs.to(dtype).requires_grad_(),
        old_logprobs.to(dtype),
        normal(rows).to(dtype),
        mask,
    )


@pytest.fixture(scope="session")
def make_batch():
    return _make_batch


@pytest.fixture(scope="session")
def scale_of():
    """Return a function from a preset to a spread of log r that leaves tokens on both sides of its
    window's edges, over about ten tokens."""
    return lambda name: _SCALES.get(name, 0.1)
