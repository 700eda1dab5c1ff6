"""What the gradient is: the stated weight, a token's own, and zero exactly where it should be."""

import math

import pytest
import torch

from ctpo.objective import (
    PRESETS,
    CumulativeRatio,
    LogWindow,
    Objective,
    fixed,
    preset,
    sqrt,
)

TOKEN_LOCAL = [name for name, objective in PRESETS.items() if objective.gradient == "token-local"]
LITERAL = [name for name in PRESETS if name not in TOKEN_LOCAL]


def gradient(out, logprobs):
    (result,) = torch.autograd.grad(out.per_token.sum(), logprobs)
    return result


def stated(name, out, log_ratio, advantages, mask):
    """The factor of -A ∇log π by the formulas, as a function of w; before any is set to 0."""
    w, positive = out.weights, advantages > 0
    if name in ("cispo", "minpro"):
        return w.clamp(max=5.0)
    if name == "topr":
        return torch.where(positive, 1.0, w.clamp(max=1.0))
    if name == "vespo":
        k, rate = torch.where(positive, 2.0, 3.0), torch.where(positive, 3.0, 2.0)
        return w**k * (rate * (1 - w)).exp()
    if name == "sapo":
        gate = torch.sigmoid(torch.where(positive, 1.0, 1.05) * (w - 1))
        return 4 * gate * (1 - gate) * w
    if name == "gmpo":
        up, down = log_ratio.clamp(max=0.4), log_ratio.clamp(min=-0.4)
        clipped = torch.where(mask, torch.where(positive, up, down), 0.0)
        return (clipped.sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True)).exp()
    return w


NEVER_ZERO = ("cispo", "minpro", "topr", "vespo", "sapo")


@pytest.mark.parametrize("name", TOKEN_LOCAL)
def test_gradient_is_the_stated_weight_times_advantage_or_zero(name, make_batch, scale_of):
    logprobs, old_logprobs, advantages, mask = make_batch(24, 9, scale=scale_of(name))
    out = preset(name)(logprobs, old_logprobs, advantages, mask)
    actual, log_ratio = gradient(out, logprobs), logprobs.detach() - old_logprobs
    factor = stated(name, out, log_ratio, advantages[:, None], mask).expand(24, 9)
    full = torch.where(mask, -factor * advantages[:, None], 0.0)
    zero = (actual == 0) & mask
    assert zero.any() == (name not in NEVER_ZERO)
    assert (mask & ~zero).any()
    torch.testing.assert_close(actual, torch.where(zero, 0.0, full), rtol=1e-5, atol=0)
    # As many as the statistics say, and for the reasons they say.
    if name not in NEVER_ZERO:
        columns = out.statistics.to_columns()
        clipped = sum(sum(columns[f"clipped_{side}"]) for side in ("high", "low", "dual"))
        assert zero.sum() == clipped


@pytest.mark.parametrize("name", PRESETS)
def test_on_policy_gradient_is_reinforce(name, make_batch):
    """Every method's, as each factor is 1 at w = 1; losses differ, as -A log π has that gradient
    too. Of a literal one the mean over the sequence is taken, of equal terms."""
    logprobs, _, advantages, mask = make_batch(5, 8)
    out = preset(name)(logprobs, logprobs.detach(), advantages, mask)
    reinforce = torch.where(mask, -advantages[:, None], 0.0)
    tolerance = 1e-6 if name in LITERAL else 0
    torch.testing.assert_close(gradient(out, logprobs), reinforce, rtol=tolerance, atol=0)
    value = reinforce
    if name in ("cispo", "minpro", "topr", "vespo"):
        value = torch.where(mask, -advantages[:, None] * logprobs.detach(), 0.0)
    if name == "sapo":
        tau = torch.where(advantages > 0, 1.0, 1.05)
        value = torch.where(mask, -2 / tau[:, None] * advantages[:, None], 0.0)
    torch.testing.assert_close(out.per_token.detach(), value, rtol=1e-6, atol=0)
    assert out.statistics.summary()["log_rho/max"] == 0


@pytest.mark.parametrize(
    ("ratio", "share"),
    [
        ("cumulative", lambda j, length: length - j + 1),
        ("cumulative-geometric-mean", lambda j, length: sum(1 / t for t in range(j, length + 1))),
        ("full-sequence", lambda j, length: length),
        ("sequence-geometric-mean", lambda j, length: 1),
    ],
)
def test_on_policy_literal_gradients_count_every_weight_a_token_is_in(ratio, share):
    """Only the sequence's geometric mean gives REINFORCE; a product counts early tokens often."""
    objective = Objective(ratio=ratio, surrogate="plain", gradient="literal")
    logprobs = torch.full((1, 6), -1.0, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[1, 1, 0, 1, 1, 1]])
    out = objective(logprobs, logprobs.detach(), torch.tensor([2.0]), mask)
    shares = [share(j, 5) for j in range(1, 6)]
    expected = [-2.0 * x for x in [*shares[:2], 0, *shares[2:]]]
    assert gradient(out, logprobs)[0].tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", TOKEN_LOCAL)
def test_a_token_moves_no_other_tokens_loss(name, make_batch):
    logprobs, old_logprobs, advantages, _ = make_batch(1, 6, scale=1e-5)
    out = preset(name)(logprobs, old_logprobs, advantages, torch.ones(1, 6))
    for t in range(6):
        (row,) = torch.autograd.grad(out.per_token[0, t], logprobs, retain_graph=True)
        assert row[0].nonzero().flatten().tolist() == [t]


@pytest.mark.parametrize("name", LITERAL)
def test_under_a_literal_gradient_every_token_of_the_weight_moves(name, make_batch):
    logprobs, old_logprobs, advantages, _ = make_batch(1, 6, scale=1e-5)
    out = preset(name)(logprobs, old_logprobs, advantages, torch.ones(1, 6))
    (row,) = torch.autograd.grad(out.per_token[0, 2], logprobs)
    assert (row != 0).all()


@pytest.mark.parametrize("name", PRESETS)
def test_rows_do_not_mix(name, make_batch, scale_of):
    logprobs, old_logprobs, advantages, mask = make_batch(4, 6, scale=scale_of(name) / 10)
    mask[:, 0] = True
    out = preset(name)(logprobs, old_logprobs, advantages, mask)
    (row,) = torch.autograd.grad(out.per_token[2].sum(), logprobs)
    assert row[2].any()
    assert not row[[0, 1, 3]].any()


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


@pytest.mark.parametrize("name", PRESETS)
def test_an_advantage_of_zero_has_no_loss_and_no_gradient(name, make_batch):
    logprobs, old_logprobs, _, mask = make_batch(3, 6, scale=1.0)
    out = preset(name)(logprobs, old_logprobs, torch.zeros(3), mask)
    assert (out.per_token == 0).all()
    assert (gradient(out, logprobs) == 0).all()


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


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("far", [-500.0, 500.0])
def test_an_extreme_ratio_leaves_everything_finite(name, far):
    """A probability that vanished, or one that was called impossible."""
    logprobs = torch.tensor([[far, 0.0], [0.0, far]], requires_grad=True)
    for sign in (1.0, -1.0):
        out = preset(name)(logprobs, torch.zeros(2, 2), torch.full((2,), sign), torch.ones(2, 2))
        slope = gradient(out, logprobs)
        assert out.per_token.isfinite().all()
        assert out.weights.isfinite().all()
        assert slope.isfinite().all()
        assert slope.square().sum().isfinite()
        summary = out.statistics.summary()
        # e^500 is beyond float32, and beyond what k3 is an estimate for.
        assert summary.pop("kl/k3") > 0
        assert all(map(math.isfinite, summary.values()))


def test_a_vanished_probability_does_not_blow_up_the_row():
    logprobs = torch.tensor([[-500.0, 0.0]], requires_grad=True)
    out = preset("ctpo")(logprobs, torch.zeros(1, 2), torch.ones(1), torch.ones(1, 2))
    torch.testing.assert_close(out.per_token.detach(), torch.zeros(1, 2))
    assert (gradient(out, logprobs) == 0).all()


def test_first_token_of_cumulative_is_the_token_ratio(make_batch):
    logprobs, old_logprobs, advantages, _ = make_batch(20, 4)
    mask = torch.ones(20, 4)
    window = LogWindow(eps_low=0.025, eps_high=0.05, power=0, dual_clip=0.05)
    token = Objective(ratio="token", window=window)(logprobs, old_logprobs, advantages, mask)
    cumulative = preset("ctpo")(logprobs, old_logprobs, advantages, mask)
    torch.testing.assert_close(token.per_token[:, 0], cumulative.per_token[:, 0])
    slopes = gradient(token, logprobs), gradient(cumulative, logprobs)
    torch.testing.assert_close(slopes[0][:, 0], slopes[1][:, 0])
    assert not torch.equal(slopes[0], slopes[1])


RATIOS_OF_PRODUCTS = [
    "token",
    "cumulative",
    "cumulative-geometric-mean",
    "full-sequence",
    "sequence-geometric-mean",
    "minimum-prefix",
]


@pytest.mark.parametrize("surrogate", ["clip", "cispo", "plain", "sapo", "topr", "vespo"])
@pytest.mark.parametrize("ratio", RATIOS_OF_PRODUCTS)
def test_for_a_single_token_all_ratios_are_the_same(ratio, surrogate, make_batch):
    """H = 1, wherever in the row the token stands."""
    logprobs, old_logprobs, advantages, _ = make_batch(20, 3, scale=0.05)
    mask = torch.zeros(20, 3, dtype=torch.bool)
    mask[torch.arange(20), torch.arange(20) % 3] = True
    window = None
    if surrogate in ("clip", "cispo"):
        window = LogWindow(eps_low=0.025, eps_high=0.05, power=0)
    results = []
    for choice in ("token", ratio):
        objective = Objective(ratio=choice, surrogate=surrogate, window=window)
        out = objective(logprobs, old_logprobs, advantages, mask)
        results.append((out.per_token, gradient(out, logprobs), out.weights))
        if choice in ("cumulative", "full-sequence") and window is not None:
            # A window that follows n is at n = 1 the same, too.
            varied = Objective(ratio=choice, surrogate=surrogate, window=sqrt(0.025, 0.05))
            out = varied(logprobs, old_logprobs, advantages, mask)
            results.append((out.per_token, gradient(out, logprobs), out.weights))
    for other in results[1:]:
        for actual, expected in zip(other, results[0], strict=True):
            torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("ratio", ["cumulative", "cumulative-geometric-mean", "full-sequence"])
def test_a_power_of_zero_is_the_fixed_window(ratio, make_batch):
    logprobs, old_logprobs, advantages, mask = make_batch(12, 20, scale=0.3, dtype=torch.float64)
    logs = LogWindow(
        eps_low=-math.log(0.8), eps_high=math.log(1.28), power=0, dual_clip=math.log(3.0)
    )
    one = Objective(ratio=ratio, window=logs)(logprobs, old_logprobs, advantages, mask)
    other = Objective(ratio=ratio, window=fixed(0.2, 0.28, dual_clip=3.0))(
        logprobs, old_logprobs, advantages, mask
    )
    torch.testing.assert_close(one.per_token, other.per_token, rtol=1e-12, atol=0)
    slope = gradient(one, logprobs)
    torch.testing.assert_close(slope, gradient(other, logprobs), rtol=1e-12, atol=0)
    assert (slope[mask] == 0).any() and (slope[mask] != 0).any()


@pytest.mark.parametrize("name", PRESETS)
def test_splitting_into_micro_batches_changes_no_total(name, make_batch, scale_of):
    logprobs, old_logprobs, advantages, mask = make_batch(
        7, 20, scale=scale_of(name), dtype=torch.float64
    )

    def run(rows):
        out = preset(name)(logprobs[rows], old_logprobs[rows], advantages[rows], mask[rows])
        return out.per_token.sum(), gradient(out, logprobs), out.per_token.detach()

    whole = run(slice(0, 7))
    parts = [run(slice(0, 3)), run(slice(3, 4)), run(slice(4, 7))]
    torch.testing.assert_close(sum(p[0] for p in parts), whole[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sum(p[1] for p in parts), whole[1], rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(torch.cat([p[2] for p in parts]), whole[2], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", PRESETS)
def test_permuting_rows_permutes_results(name, make_batch, scale_of):
    logprobs, old_logprobs, advantages, mask = make_batch(6, 20, scale=scale_of(name))
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    out = preset(name)(logprobs, old_logprobs, advantages, mask)
    other = preset(name)(logprobs[order], old_logprobs[order], advantages[order], mask[order])
    torch.testing.assert_close(other.per_token, out.per_token[order])
    torch.testing.assert_close(other.weights, out.weights[order])
    torch.testing.assert_close(gradient(other, logprobs), gradient(out, logprobs))
    for mine, whole in zip(other.sequences(), out.sequences(), strict=True):
        torch.testing.assert_close(mine, whole[order])


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
    assert not any(x.requires_grad for x in out.sequences())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", PRESETS)
def test_half_precision_is_computed_in_float32(name, dtype, make_batch):
    logprobs, old_logprobs, advantages, mask = make_batch(4, 50)
    half = logprobs.detach().to(dtype).requires_grad_()
    same = half.detach().float().requires_grad_()
    out = preset(name)(half, old_logprobs.to(dtype), advantages.to(dtype), mask)
    expected = preset(name)(
        same, old_logprobs.to(dtype).float(), advantages.to(dtype).float(), mask
    )
    assert out.per_token.dtype == torch.float32
    assert torch.equal(out.per_token, expected.per_token)
    assert torch.equal(gradient(out, half), gradient(expected, same).to(dtype))
    assert out.statistics.to_columns() == expected.statistics.to_columns()


def test_float64_stays_float64(make_batch):
    logprobs, old_logprobs, advantages, mask = make_batch(4, 50, dtype=torch.float64)
    exact = preset("ctpo")(logprobs, old_logprobs, advantages, mask)
    single = preset("ctpo")(logprobs.float(), old_logprobs, advantages, mask)
    assert (exact.per_token.dtype, single.per_token.dtype) == (torch.float64, torch.float32)
    torch.testing.assert_close(exact.per_token, single.per_token.double(), rtol=1e-5, atol=1e-6)


def test_a_prefix_sum_over_32k_tokens_stays_exact_in_float32():
    generator = torch.Generator().manual_seed(5)
    log_ratio = 0.036 * torch.randn(2, 32768, generator=generator)
    log_ratio[1] -= log_ratio[1].mean()
    out = Objective(ratio="cumulative", surrogate="plain")(
        log_ratio, torch.zeros(2, 32768), torch.ones(2), torch.ones(2, 32768)
    )
    exact = log_ratio.double().cumsum(dim=1)
    assert (out.weights.double().log() - exact).abs().max() < 2e-5


@pytest.mark.parametrize("name", PRESETS)
def test_advantages_per_response_and_per_token_agree(name, make_batch, scale_of):
    logprobs, old_logprobs, advantages, mask = make_batch(4, 4, scale=scale_of(name))
    one = preset(name)(logprobs, old_logprobs, advantages, mask)
    each = preset(name)(logprobs, old_logprobs, advantages[:, None].expand(4, 4), mask)
    torch.testing.assert_close(one.per_token, each.per_token)
    torch.testing.assert_close(gradient(one, logprobs), gradient(each, logprobs))


def test_on_a_square_batch_advantages_are_those_of_rows(make_batch):
    logprobs, old_logprobs, advantages, mask = make_batch(4, 4)
    one = preset("ctpo")(logprobs, old_logprobs, advantages, mask)
    assert torch.equal(one.per_token.sign(), torch.where(mask, -advantages.sign()[:, None], 0.0))
