"""Reductions: hand-computed numbers, and what empty rows do."""

import pytest
import torch

from ctpo.objective import (
    REDUCTIONS,
    preset,
    seq_mean_token_mean,
    seq_mean_token_sum,
    token_mean,
)

PER_TOKEN = torch.tensor([[1.0, 2.0, 6.0], [4.0, 99.0, 99.0]])
MASK = torch.tensor([[True, True, True], [True, False, False]])


@pytest.mark.parametrize(
    ("name", "function", "expected"),
    [
        ("seq-mean-token-mean", seq_mean_token_mean, (9 / 3 + 4) / 2),
        ("seq-mean-token-sum", seq_mean_token_sum, (9 + 4) / 2),
        ("token-mean", token_mean, 13 / 4),
    ],
)
def test_reduction_by_hand(name, function, expected):
    assert function(PER_TOKEN, MASK).item() == expected
    assert REDUCTIONS[name](PER_TOKEN, MASK).item() == expected


def test_the_output_uses_the_reduction_it_is_asked_for(make_batch):
    logprobs, old_logprobs, advantages, mask = make_batch(3, 7)
    out = preset("ctpo")(logprobs, old_logprobs, advantages, mask)
    values = {name: out.mean(name).item() for name in REDUCTIONS}
    assert len(set(values.values())) == len(REDUCTIONS)
    for name, value in values.items():
        assert value == REDUCTIONS[name](out.per_token, mask).item()


@pytest.mark.parametrize("name", REDUCTIONS)
def test_an_empty_row_changes_nothing(name):
    padded = torch.cat([PER_TOKEN, torch.full((1, 3), torch.nan)])
    mask = torch.cat([MASK, torch.zeros(1, 3, dtype=torch.bool)])
    assert torch.equal(REDUCTIONS[name](padded, mask), REDUCTIONS[name](PER_TOKEN, MASK))


def test_an_unknown_reduction_names_the_nearest(make_batch):
    logprobs, old_logprobs, advantages, mask = make_batch(2, 2)
    out = preset("ctpo")(logprobs, old_logprobs, advantages, mask)
    with pytest.raises(ValueError, match="'token_mean'; did you mean 'token-mean'"):
        out.mean("token_mean")
