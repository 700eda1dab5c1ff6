"""Reductions: hand-computed numbers, and what empty rows do."""

import pytest
import torch

from ctpo.objective import (
    PRESETS,
    REDUCTIONS,
    preset,
    seq_mean_token_mean,
    seq_mean_token_sum,
    token_mean,
)

# Losses 1, 2, 6 and 4.
SUMS, LENGTHS = torch.tensor([9.0, 4.0]), torch.tensor([3, 1])


@pytest.mark.parametrize(
    ("name", "function", "expected"),
    [
        ("seq-mean-token-mean", seq_mean_token_mean, (9 / 3 + 4) / 2),
        ("seq-mean-token-sum", seq_mean_token_sum, (9 + 4) / 2),
        ("token-mean", token_mean, 13 / 4),
    ],
)
def test_reduction_by_hand(name, function, expected):
    assert function(SUMS, LENGTHS).item() == expected
    assert REDUCTIONS[name](SUMS, LENGTHS).item() == expected


def test_the_output_uses_the_reduction_it_is_asked_for(make_batch):
    logprobs, old_logprobs, advantages, mask = make_batch(3, 7)
    out = preset("ctpo")(logprobs, old_logprobs, advantages, mask)
    values = {name: out.mean(name).item() for name in REDUCTIONS}
    assert len(set(values.values())) == len(REDUCTIONS)
    for name, value in values.items():
        sums, lengths = out.per_token.sum(dim=1), mask.sum(dim=1)
        assert value == pytest.approx(REDUCTIONS[name](sums, lengths).item(), rel=1e-6)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_an_empty_sequence_changes_nothing(name, make_batch):
    sums, lengths = torch.cat([SUMS, torch.zeros(2)]), torch.cat([LENGTHS, torch.zeros(2).long()])
    assert torch.equal(REDUCTIONS[name](sums, lengths), REDUCTIONS[name](SUMS, LENGTHS))

    logprobs, old_logprobs, advantages, mask = make_batch(4, 5, dtype=torch.float64)
    mask[3] = False
    whole = preset("ctpo")(logprobs, old_logprobs, advantages, mask)
    rest = preset("ctpo")(logprobs[:3], old_logprobs[:3], advantages[:3], mask[:3])
    torch.testing.assert_close(whole.mean(name), rest.mean(name), rtol=1e-12, atol=0)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", PRESETS)
def test_the_gradient_is_that_of_the_reduced_loss_by_hand(name, reduction, make_batch, scale_of):
    """Each token's slope, times its share in the mean."""
    logprobs, old_logprobs, advantages, mask = make_batch(
        4, 9, scale=scale_of(name), dtype=torch.float64
    )
    mask[2] = False
    out = preset(name)(logprobs, old_logprobs, advantages, mask)
    (each,) = torch.autograd.grad(out.per_token.sum(), logprobs, retain_graph=True)
    (actual,) = torch.autograd.grad(out.mean(reduction), logprobs)
    lengths = mask.sum(dim=1, keepdim=True)
    share = {
        "seq-mean-token-mean": 1 / (3 * lengths),
        "seq-mean-token-sum": torch.full((4, 1), 1 / 3),
        "token-mean": torch.full((4, 1), 1 / int(mask.sum())),
    }[reduction]
    expected = torch.where(mask, each * share, 0.0)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-12)


def test_an_unknown_reduction_names_the_nearest(make_batch):
    logprobs, old_logprobs, advantages, mask = make_batch(2, 2)
    out = preset("ctpo")(logprobs, old_logprobs, advantages, mask)
    with pytest.raises(ValueError, match="'token_mean'; did you mean 'token-mean'"):
        out.mean("token_mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown reduction 'None'"):
        out.mean(None)  # type: ignore[arg-type]
