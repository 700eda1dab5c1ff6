"""Every preset against loops in plain Python floats: value, gradient and statistics."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ctpo.objective import PRESETS, preset

NUDGE = 1e-6


def log_weights_and_factors(name, log_ratios):
    """For the policy tokens of one row, in order."""
    count = len(log_ratios)
    if name == "grpo":
        return log_ratios, [1] * count
    if name == "gspo":
        return [sum(log_ratios) / count] * count, [1] * count
    if name == "full-sequence":
        return [sum(log_ratios)] * count, [count] * count
    assert name in ("ctpo", "ctpo-printed")
    return [sum(log_ratios[: t + 1]) for t in range(count)], list(range(1, count + 1))


def ratio_bounds(name, factors):
    """Low, high and dual bound in ratio space, as the papers print them."""
    if name == "grpo":
        return 1 - 0.2, 1 + 0.28, math.inf
    if name == "gspo":
        return 1 - 3e-4, 1 + 4e-4, math.inf
    root = math.sqrt(factors)
    dual = math.inf if name == "ctpo-printed" else math.exp(0.05 * root)
    return math.exp(-0.025 * root), math.exp(0.05 * root), dual


def token_loss(weight, advantage, low, high, dual):
    """The printed formula: pessimistic minimum, then the dual clip."""
    loss = -min(weight * advantage, min(max(weight, low), high) * advantage)
    if advantage < 0:
        loss = min(loss, -dual * advantage)
    return loss


def loop_row(name, log_ratios, advantages, mask):
    """Loss, its derivative in each token's own log-prob, and log w, by place; None if masked."""
    places = [i for i, m in enumerate(mask) if m]
    result: list = [None] * len(mask)
    if not places:
        return result
    log_weights, factors = log_weights_and_factors(name, [log_ratios[i] for i in places])
    for place, log_weight, n in zip(places, log_weights, factors, strict=True):
        bounds = ratio_bounds(name, n)

        def loss(nudge, log_weight=log_weight, bounds=bounds, advantage=advantages[place]):
            # Token-local: nudging a token moves its own factor, the rest of the weight is held.
            return token_loss(math.exp(log_weight + nudge), advantage, *bounds)

        slope = (loss(NUDGE) - loss(-NUDGE)) / (2 * NUDGE)
        result[place] = (loss(0.0), slope, log_weight, bounds)
    return result


@st.composite
def batches(draw):
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 7))
    # 1e-3 moves GSPO's window of 3e-4, 0.05 CTPO's, 0.5 GRPO's.
    scale = draw(st.sampled_from([1e-3, 0.05, 0.5]))
    unit = st.floats(-1, 1, allow_subnormal=False)

    def table(element):
        return draw(
            st.lists(
                st.lists(element, min_size=columns, max_size=columns),
                min_size=rows,
                max_size=rows,
            )
        )

    log_ratios = [[scale * x for x in row] for row in table(unit)]
    advantages = table(st.sampled_from([-1.5, -0.5, 0.0, 0.25, 2.0]))
    return log_ratios, advantages, table(st.booleans())


@pytest.mark.parametrize("name", PRESETS)
@settings(max_examples=60, deadline=None)
@given(batch=batches())
def test_value_and_gradient_equal_loops(name, batch):
    log_ratios, advantages, mask = batch
    expected = [loop_row(name, *row) for row in zip(*batch, strict=True)]
    for row in expected:
        for entry in filter(None, row):
            # On a bound itself the numerical derivative is not defined.
            assume(all(abs(entry[2] - math.log(b)) > 10 * NUDGE for b in entry[3] if b < math.inf))

    logprobs = torch.tensor(log_ratios, dtype=torch.float64).sub(1.0).requires_grad_()
    old_logprobs = torch.full_like(logprobs, -1.0).detach()
    out = preset(name)(
        logprobs,
        old_logprobs,
        torch.tensor(advantages, dtype=torch.float64),
        torch.tensor(mask),
    )
    (gradient,) = torch.autograd.grad(out.per_token.sum(), logprobs)

    def numbers(index):
        rows = [[0.0 if e is None else e[index] for e in row] for row in expected]
        return torch.tensor(rows, dtype=torch.float64)

    torch.testing.assert_close(out.per_token.detach(), numbers(0), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, numbers(1), rtol=1e-7, atol=1e-8)
    weights = torch.where(torch.tensor(mask), numbers(2).exp(), 0.0)
    torch.testing.assert_close(out.weights, weights, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", PRESETS)
def test_long_rows_equal_loops_in_float32(name, make_batch):
    scale = {"grpo": 0.3, "gspo": 0.005, "full-sequence": 0.05}.get(name, 0.05)
    logprobs, old_logprobs, advantages, mask = make_batch(4, 300, seed=3, scale=scale)
    out = preset(name)(logprobs, old_logprobs, advantages, mask)
    log_ratios = (logprobs.double() - old_logprobs.double()).tolist()
    for b in range(4):
        row = loop_row(name, log_ratios[b], [advantages[b].item()] * 300, mask[b].tolist())
        expected = torch.tensor([0.0 if e is None else e[0] for e in row])
        torch.testing.assert_close(out.per_token[b].detach(), expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("power", [0.0, 0.3, 1.0])
def test_the_exponent_is_the_one_given(power):
    """The public code crashes at 0."""
    objective = preset("ctpo", power=power)
    log_ratios = torch.full((1, 9), 0.3, dtype=torch.float64)
    out = objective(log_ratios, torch.zeros_like(log_ratios), torch.ones(1), torch.ones(1, 9))
    expected = [-math.exp(min(0.3 * t, 0.05 * t**power)) for t in range(1, 10)]
    torch.testing.assert_close(out.per_token[0], torch.tensor(expected, dtype=torch.float64))
