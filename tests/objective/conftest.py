import pytest
import torch

torch.set_num_threads(1)


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
