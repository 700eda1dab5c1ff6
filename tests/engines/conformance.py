"""What every adapter has to get right, on one ragged batch with holes.

An adapter's test turns the batch into what its engine hands over, calls the engine's own code, and
gives back the loss and the gradient by each response's log-probabilities.
"""

from dataclasses import dataclass

import pyarrow.parquet as pq
import pytest
import torch

import ctpo

PRESETS = ("ctpo", "grpo", "gspo")


@dataclass
class Response:
    logprobs: torch.Tensor
    old_logprobs: torch.Tensor
    advantage: float
    mask: torch.Tensor


def responses():
    """Four responses of 5 to 23 tokens, of both signs, with holes in the mask."""
    random = torch.Generator().manual_seed(11)
    made = []
    for length, advantage in ((5, 1.2), (23, -0.7), (9, -1.5), (16, 0.4)):
        old = -torch.rand(length, generator=random) * 3
        new = old + 0.05 * torch.randn(length, generator=random)
        mask = torch.rand(length, generator=random) > 0.25
        mask[1] = True
        made.append(Response(new, old, advantage, mask))
    return made


def on_plain_tensors(preset, batch, reduction):
    """Loss, gradients and statistics by our own classes."""
    logprobs = [r.logprobs.clone().requires_grad_() for r in batch]
    out = ctpo.preset(preset)(
        logprobs,
        [r.old_logprobs for r in batch],
        torch.tensor([r.advantage for r in batch]),
        [r.mask for r in batch],
    )
    loss = out.mean(reduction)
    return loss, torch.autograd.grad(loss, logprobs), out.statistics


def padded(columns, fill):
    """Put rows [T_i] into one [B, T], with what must change nothing behind each."""
    return torch.nn.utils.rnn.pad_sequence(columns, batch_first=True, padding_value=fill)


def check_positions(table, preset, batch):
    """Compare the file of statistics by position of batch 1 with ours."""
    written = pq.read_table(table).to_pydict()
    _, _, expected = on_plain_tensors(preset, batch, "token-mean")
    assert set(written["batch"]) == {1}
    for name, column in expected.to_columns().items():
        assert written[name] == pytest.approx(list(column), rel=1e-5, abs=1e-6), name


def check(loss, gradients, preset, batch, reduction):
    """Compare an engine's loss and gradients with ours."""
    expected, by_response, _ = on_plain_tensors(preset, batch, reduction)
    torch.testing.assert_close(torch.as_tensor(loss), expected.detach(), rtol=1e-6, atol=1e-7)
    for given, right in zip(gradients, by_response, strict=True):
        torch.testing.assert_close(given, right, rtol=1e-5, atol=1e-8)
