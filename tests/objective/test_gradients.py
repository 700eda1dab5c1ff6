"""What the gradient is: the stated weight, a token's own, and zero exactly where it should be."""

import math

import pytest
import torch

from ctpo.objective import PRESETS, CumulativeRatio, LogWindow, Objective, TokenRatio, preset


def gradient(out, logprobs):
    (result,) = torch.autograd.grad(out.per_token.sum(), logprobs)
    return result


@pytest.mark.parametrize("name", PRESETS)
def test_gradient_is_weight_times_advantage_or_zero(name, make_batch):
    scale = 0.002 if name == "gspo" else 0.2
    logprobs, old_logprobs, advantages, mask = make_batch(12, 9, scale=scale)
    out = preset(name)(logprobs, old_logprobs, advantages, mask)
    actual = gradient(out, logprobs)
    full = torch.where(mask, -out.weights * advantages[:, None], 0.0)
    clipped = (actual == 0) & mask
    assert clipped.any()
    assert (mask & ~clipped).any()
    torch.testing.assert_close(actual, torch.where(clipped, 0.0, full), rtol=1e-6, atol=0)
    # As many as the statistics say, and for the reasons they say.
    columns = out.statistics.to_columns()
    assert clipped.sum() == sum(sum(columns[f"clipped_{side}"]) for side in ("high", "low", "dual"))


@pytest.mark.parametrize("name", PRESETS)
def test_on_policy_gradient_is_reinforce(name, make_batch):
    logprobs, _, advantages, mask = make_batch(5, 8)
    out = preset(name)(logprobs, logprobs.detach(), advantages, mask)
    reinforce = torch.where(mask, -advantages[:, None], 0.0)
    torch.testing.assert_close(gradient(out, logprobs), reinforce, rtol=0, atol=0)
    torch.testing.assert_close(out.per_token.detach(), reinforce, rtol=0, atol=0)
    assert out.statistics.summary()["log_rho/max"] == 0


@pytest.mark.parametrize("name", PRESETS)
def test_a_token_moves_no_other_tokens_loss(name, make_batch):
    logprobs, old_logprobs, advantages, _ = make_batch(1, 6, scale=1e-4)
    out = preset(name)(logprobs, old_logprobs, advantages, torch.ones(1, 6))
    for t in range(6):
        (row,) = torch.autograd.grad(out.per_token[0, t], logprobs, retain_graph=True)
        assert row[0].nonzero().flatten().tolist() == [t]


@pytest.mark.parametrize(
    ("advantage", "log_weight", "flows"),
    [
        (1.0, 0.05, True),
        (1.0, math.nextafter(0.05, 1), False),
        (1.0, -5.0, True),
        (-1.0, -0.025, True),
        (-1.0, math.nextafter(-0.025, -1), False),
        (-1.0, 0.05, True),
        (-1.0, math.nextafter(0.05, 1), False),
        (0.0, 0.0, False),
        (0.0, 9.0, False),
    ],
)
def test_zero_exactly_beyond_the_bounds(advantage, log_weight, flows):
    logprobs = torch.tensor([[log_weight]], dtype=torch.float64, requires_grad=True)
    out = preset("ctpo")(
        logprobs,
        torch.zeros(1, 1),
        torch.tensor([advantage]),
        torch.ones(1, 1),
    )
    expected = -advantage * math.exp(log_weight) if flows else 0.0
    assert gradient(out, logprobs).item() == pytest.approx(expected, rel=1e-12, abs=0)
    if advantage == 0:
        assert out.per_token.item() == 0


def test_the_clip_is_decided_before_the_weight_is_capped():
    """log ρ = 60 and 90 lie below a bound of 100, although both weights are capped for exp."""
    window = LogWindow(eps_low=0.0, eps_high=100.0, power=0)
    objective = Objective(ratio=CumulativeRatio(), window=window)
    logprobs = torch.tensor([[60.0, 30.0, 30.0]], requires_grad=True)
    out = objective(logprobs, torch.zeros(1, 3), torch.ones(1), torch.ones(1, 3))
    slope = gradient(out, logprobs)
    assert (slope[0, :2] < 0).all()
    assert slope[0, 2] == 0
    assert out.per_token.isfinite().all()
    assert out.weights.isfinite().all()
    assert slope.square().sum().isfinite()


def test_a_vanished_probability_does_not_blow_up_the_row():
    logprobs = torch.tensor([[-500.0, 0.0]], requires_grad=True)
    out = preset("ctpo")(logprobs, torch.zeros(1, 2), torch.ones(1), torch.ones(1, 2))
    torch.testing.assert_close(out.per_token.detach(), torch.zeros(1, 2))
    assert (gradient(out, logprobs) == 0).all()


def test_first_token_of_cumulative_is_the_token_ratio(make_batch):
    logprobs, old_logprobs, advantages, _ = make_batch(20, 1)
    mask = torch.ones(20, 1)
    window = LogWindow(eps_low=0.025, eps_high=0.05, power=0, dual_clip=0.05)
    token = Objective(ratio=TokenRatio(), window=window)(logprobs, old_logprobs, advantages, mask)
    cumulative = preset("ctpo")(logprobs, old_logprobs, advantages, mask)
    assert torch.equal(token.per_token, cumulative.per_token)
    assert torch.equal(gradient(token, logprobs), gradient(cumulative, logprobs))


def test_only_logprobs_receive_a_gradient(make_batch):
    logprobs, old_logprobs, advantages, mask = make_batch(3, 4)
    old_logprobs.requires_grad_()
    advantages.requires_grad_()
    out = preset("ctpo")(logprobs, old_logprobs, advantages, mask)
    out.mean("token-mean").backward()
    assert logprobs.grad is not None
    assert old_logprobs.grad is None
    assert advantages.grad is None
    assert not out.weights.requires_grad


def test_bfloat16_is_computed_in_float32(make_batch):
    logprobs, old_logprobs, advantages, mask = make_batch(4, 50)
    half = logprobs.detach().bfloat16().requires_grad_()
    same = half.detach().float().requires_grad_()
    out = preset("ctpo")(half, old_logprobs.bfloat16(), advantages.bfloat16(), mask)
    expected = preset("ctpo")(
        same, old_logprobs.bfloat16().float(), advantages.bfloat16().float(), mask
    )
    assert out.per_token.dtype == torch.float32
    assert torch.equal(out.per_token, expected.per_token)
    assert torch.equal(gradient(out, half), gradient(expected, same).bfloat16())


def test_float64_stays_float64(make_batch):
    logprobs, old_logprobs, advantages, mask = make_batch(4, 50, dtype=torch.float64)
    exact = preset("ctpo")(logprobs, old_logprobs, advantages, mask)
    single = preset("ctpo")(logprobs.float(), old_logprobs, advantages, mask)
    assert (exact.per_token.dtype, single.per_token.dtype) == (torch.float64, torch.float32)
    torch.testing.assert_close(exact.per_token, single.per_token.double(), rtol=1e-5, atol=1e-6)


def test_advantages_per_response_and_per_token_agree(make_batch):
    logprobs, old_logprobs, advantages, mask = make_batch(4, 4)
    one = preset("ctpo")(logprobs, old_logprobs, advantages, mask)
    each = preset("ctpo")(logprobs, old_logprobs, advantages[:, None].expand(4, 4), mask)
    assert torch.equal(one.per_token, each.per_token)
    # On a square batch the two could be mixed up: rows, not columns, have the advantage.
    assert torch.equal(one.per_token.sign(), torch.where(mask, -advantages.sign()[:, None], 0.0))
