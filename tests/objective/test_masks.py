"""Masks: what is not the policy's does not exist."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctpo.objective import PRESETS, REDUCTIONS, preset


def loss_and_gradient(name, logprobs, old_logprobs, advantages, mask):
    leaf = logprobs.detach().clone().requires_grad_()
    out = preset(name)(leaf, old_logprobs, advantages, mask)
    out.per_token.sum().backward()
    return out, out.per_token.detach(), leaf.grad


@pytest.mark.parametrize("name", PRESETS)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(before=st.lists(st.integers(0, 3), min_size=5, max_size=5), seed=st.integers(0, 99))
def test_inserted_tool_tokens_change_nothing_but_their_own_zeros(
    make_batch, scale_of, name, before, seed
):
    """`before[j]` tool tokens are put before policy token j."""
    logprobs, old_logprobs, advantages, _ = make_batch(
        3, 5, seed=seed, scale=scale_of(name), dtype=torch.float64
    )
    places = [sum(before[: j + 1]) + j for j in range(5)]
    width = 5 + sum(before)

    def spread(values, filler):
        wide = torch.full((3, width), filler, dtype=values.dtype)
        wide[:, places] = values
        return wide

    out, loss, slope = loss_and_gradient(name, logprobs, old_logprobs, advantages, torch.ones(3, 5))
    wide_out, wide_loss, wide_slope = loss_and_gradient(
        name,
        spread(logprobs.detach(), -7.0),
        spread(old_logprobs, -1.0),
        advantages,
        spread(torch.ones(3, 5), 0.0),
    )
    # Zeros in the sum over a row can change the order of summation, so the last bits.
    for wide, narrow in [
        (wide_loss, loss),
        (wide_slope, slope),
        (wide_out.weights, out.weights),
    ]:
        torch.testing.assert_close(wide, spread(narrow, 0.0), rtol=1e-10, atol=1e-15)
    columns = out.statistics.to_columns()
    for column, values in wide_out.statistics.to_columns().items():
        assert values == pytest.approx(columns[column], rel=1e-9, abs=1e-14), column
    for mine, theirs in zip(wide_out.sequences(), out.sequences(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-14)
    for reduction in REDUCTIONS:
        torch.testing.assert_close(wide_out.mean(reduction), out.mean(reduction))


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", PRESETS)
def test_what_stands_at_masked_places_changes_nothing(name, poison, make_batch, scale_of):
    logprobs, old_logprobs, advantages, mask = make_batch(6, 8, scale=scale_of(name))
    advantages = advantages[:, None].expand(6, 8)
    clean, loss, slope = loss_and_gradient(name, logprobs, old_logprobs, advantages, mask)
    assert slope.any()
    # Both at once as well: inf - inf is NaN.
    for which in [(0,), (1,), (2,), (0, 1, 2)]:
        poisoned = [
            torch.where(mask, values.detach(), poison) if i in which else values
            for i, values in enumerate((logprobs, old_logprobs, advantages))
        ]
        out, poisoned_loss, poisoned_slope = loss_and_gradient(
            name, poisoned[0], poisoned[1], poisoned[2], mask
        )
        assert torch.equal(poisoned_loss, loss)
        assert torch.equal(poisoned_slope, slope)
        assert out.statistics.to_columns() == clean.statistics.to_columns()


@pytest.mark.parametrize("name", PRESETS)
def test_a_row_without_policy_tokens_is_zero_with_a_finite_gradient(name, make_batch):
    logprobs, old_logprobs, advantages, mask = make_batch(3, 5)
    mask[1] = False
    for reduction in REDUCTIONS:
        leaf = logprobs.detach().clone().requires_grad_()
        out = preset(name)(leaf, old_logprobs, advantages, mask)
        loss = out.mean(reduction)
        loss.backward()
        assert (out.per_token[1] == 0).all()
        assert (leaf.grad[1] == 0).all()
        assert leaf.grad.isfinite().all()
        assert loss.isfinite()


@pytest.mark.parametrize("name", PRESETS)
def test_a_batch_without_policy_tokens_is_zero_with_a_zero_gradient(name, make_batch):
    logprobs, old_logprobs, advantages, _ = make_batch(2, 3)
    for reduction in REDUCTIONS:
        out = preset(name)(logprobs, old_logprobs, advantages, torch.zeros(2, 3))
        loss = out.mean(reduction)
        (slope,) = torch.autograd.grad(loss, logprobs)
        assert loss == 0
        assert (slope == 0).all()


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32, torch.bfloat16])
def test_a_mask_of_any_dtype_is_the_boolean_one(dtype, make_batch):
    logprobs, old_logprobs, advantages, mask = make_batch(3, 6)
    expected = preset("ctpo")(logprobs, old_logprobs, advantages, mask)
    out = preset("ctpo")(logprobs, old_logprobs, advantages, mask.to(dtype))
    assert torch.equal(out.per_token, expected.per_token)
    assert out.mask.dtype == torch.bool


@pytest.mark.parametrize("name", PRESETS)
def test_a_row_without_policy_tokens_changes_no_other(name, make_batch, scale_of):
    logprobs, old_logprobs, advantages, mask = make_batch(4, 9, scale=scale_of(name))
    mask[2] = False
    keep = [0, 1, 3]
    _, loss, slope = loss_and_gradient(name, logprobs, old_logprobs, advantages, mask)
    out, rest, rest_slope = loss_and_gradient(
        name, logprobs[keep], old_logprobs[keep], advantages[keep], mask[keep]
    )
    torch.testing.assert_close(loss[keep], rest)
    torch.testing.assert_close(slope[keep], rest_slope)
    assert out.statistics.sequences == 3


def test_nan_at_a_policy_token_is_not_hidden(make_batch):
    """Without `check` it costs nothing to keep it loud: the loss is NaN from there on."""
    logprobs, old_logprobs, advantages, _ = make_batch(2, 4)
    old_logprobs[1, 1] = math.nan
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 1]])
    out = preset("ctpo")(logprobs, old_logprobs, advantages, mask)
    expected = [[False] * 4, [False, True, False, True]]
    assert out.per_token.isnan().tolist() == expected
    assert out.weights.isnan().tolist() == expected
    assert out.per_token[1, 2] == out.weights[1, 2] == 0
