"""Every preset against loops in plain Python floats: value, gradient and weight."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ctpo.objective import PRESETS, preset

NUDGE = 1e-6


def mean(values):
    return sum(values) / len(values)


def log_weight(name, log_r, t):
    """log w of the policy token with 0-based index t, from all log r of its row."""
    if name in ("grpo", "dapo", "dr-grpo", "cispo", "sapo", "cppo"):
        return log_r[t]
    if name in ("gspo", "gspo-token", "gmpo"):
        return mean(log_r)
    if name in ("full-sequence", "topr", "vespo"):
        return sum(log_r)
    if name == "minpro":
        return log_r[t] + (min(log_r[:t]) if t else 0.0)
    if name == "pnpo":
        return mean(log_r[: t + 1])
    assert name.startswith("ctpo")
    return sum(log_r[: t + 1])


def pessimistic(weight, advantage, low, high, dual=math.inf):
    loss = -min(weight * advantage, min(max(weight, low), high) * advantage)
    return min(loss, -dual * advantage) if advantage < 0 else loss


def edges(name, t, length):
    """Low, high and dual bound in ratio space, as the papers print them; t is 1-based."""
    fixed = {
        "grpo": (0.8, 1.2, math.inf),
        "dr-grpo": (0.8, 1.2, math.inf),
        "dapo": (0.8, 1.28, math.inf),
        "gspo": (1 - 3e-4, 1 + 4e-4, math.inf),
        "gspo-token": (1 - 3e-4, 1 + 4e-4, math.inf),
        "ctpo-fixed": (0.5, 5.0, 5.0),
    }
    if name in fixed:
        return fixed[name]
    root = {"pnpo": 1 / math.sqrt(t), "full-sequence": math.sqrt(length)}.get(name, math.sqrt(t))
    dual = math.inf if name == "ctpo-printed" else math.exp(0.05 * root)
    return math.exp(-0.025 * root), math.exp(0.05 * root), dual


def kept(statistic, advantage, low, high, dual):
    return not (
        (advantage > 0 and statistic > high)
        or (advantage < 0 and (statistic < low or statistic > dual))
    )


def loss_of(name, t, log_r, logp, advantage):
    """Return the loss of token t as a function of a nudge of its own log-prob, and its edges.

    The edges are pairs (statistic, bound): near one, a numerical derivative means nothing.
    """
    length = len(log_r)
    lw = log_weight(name, log_r, t)
    w = math.exp(lw)

    def score(factor):
        return lambda x: -factor * advantage * (logp[t] + x)

    def constant_or_slope(keep):
        # Outside its window a token keeps its loss and loses its gradient.
        return lambda x: -w * math.exp(x if keep else 0.0) * advantage

    if name == "cispo" or name == "minpro":
        return score(min(w, 5.0)), [(w, 5.0)]
    if name == "topr":
        return score(1.0 if advantage > 0 else min(w, 1.0)), []
    if name == "vespo":
        k, rate = (2.0, 3.0) if advantage >= 0 else (3.0, 2.0)
        return score(w**k * math.exp(rate * (1 - w))), []
    if name == "sapo":
        tau = 1.0 if advantage > 0 else 1.05

        def gated(x):
            return -4 / tau / (1 + math.exp(-tau * (w * math.exp(x) - 1))) * advantage

        return gated, []
    if name == "gmpo":

        def clip(x):
            if advantage > 0:
                return min(x, 0.4)
            return max(x, -0.4) if advantage < 0 else x

        inside = clip(log_r[t]) == log_r[t]
        value = math.exp(mean([clip(x) for x in log_r]))
        near = [(log_r[t], 0.4), (log_r[t], -0.4)]
        return lambda x: -value * (math.exp(x) if inside else 1.0) * advantage, near
    if name == "cppo":
        fall = [(length - j) / length for j in range(length)]
        new, old = (
            [math.exp(p) for p in logp],
            [math.exp(p - r) for p, r in zip(logp, log_r, strict=True)],
        )
        spent = [fall[j] * abs(new[j] - old[j]) for j in range(length)]
        room = min(0.15, 0.15 + 0.02 * sum(fall[:t]) - sum(spent[:t]))
        inside = advantage * (w - 1) <= 0 or spent[t] <= room
        return lambda x: -w * math.exp(x) * advantage * inside, [(spent[t], room)]
    if name == "ctpo-drift-free":
        moved, root = sum(math.exp(x) - 1 for x in log_r[: t + 1]), math.sqrt(t + 1)
        bounds = (-0.025 * root, 0.05 * root, 0.05 * root)
        return constant_or_slope(kept(moved, advantage, *bounds)), [(moved, b) for b in bounds]
    if name == "ctpo-exact-kl":
        divergence = w - 1 - lw
        low, high = 0.025**2 / 2 * (t + 1), 0.05**2 / 2 * (t + 1)
        outside = divergence > (low if lw < 0 else high)
        keep = not outside or (advantage > 0 and lw < 0) or advantage == 0
        near = [(divergence / low, 1.0), (divergence / high, 1.0)]
        return constant_or_slope(keep), near
    bounds = edges(name, t + 1, length)
    near = [(lw, math.log(b)) for b in bounds if 0 < b < math.inf]
    return lambda x: pessimistic(w * math.exp(x), advantage, *bounds), near


def loop_row(name, log_r, logp, advantages, mask):
    """Loss, slope, weight and edges by place; None if masked."""
    places = [i for i, m in enumerate(mask) if m]
    result: list = [None] * len(mask)
    for t, place in enumerate(places):
        loss, near = loss_of(
            name, t, [log_r[i] for i in places], [logp[i] for i in places], advantages[place]
        )
        slope = (loss(NUDGE) - loss(-NUDGE)) / (2 * NUDGE)
        weight = math.exp(log_weight(name, [log_r[i] for i in places], t))
        result[place] = (loss(0.0), slope, weight, near)
    return result


@st.composite
def batches(draw):
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 7))
    # 1e-3 moves GSPO's window of 3e-4, 0.05 CTPO's, 0.5 GRPO's.
    scale = draw(st.sampled_from([1e-3, 0.05, 0.5]))
    unit = st.floats(-1, 1, allow_subnormal=False)

    def table(element, width):
        row = st.lists(element, min_size=width, max_size=width)
        return draw(st.lists(row, min_size=rows, max_size=rows))

    log_ratios = [[scale * x for x in row] for row in table(unit, columns)]
    # Some methods are about sequences: one advantage each.
    advantages = table(st.sampled_from([-1.5, -0.5, 0.0, 0.25, 2.0]), 1)
    return log_ratios, [row * columns for row in advantages], table(st.booleans(), columns)


@pytest.mark.parametrize("name", PRESETS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(batch=batches())
def test_value_and_gradient_equal_loops(name, batch):
    log_ratios, advantages, mask = batch
    logps = [[x - 1.0 for x in row] for row in log_ratios]
    rows = zip(log_ratios, logps, advantages, mask, strict=True)
    expected = [loop_row(name, *row) for row in rows]
    for row in expected:
        for entry in filter(None, row):
            assume(all(abs(a - b) > 10 * NUDGE for a, b in entry[3]))

    logprobs = torch.tensor(logps, dtype=torch.float64).requires_grad_()
    out = preset(name)(
        logprobs,
        torch.full_like(logprobs, -1.0).detach(),
        torch.tensor(advantages, dtype=torch.float64),
        torch.tensor(mask),
    )
    # The gradient that is a token's own; of "literal" ones the sum over a row is the same where
    # advantages are, see test_gradients.
    local = preset(name, gradient="token-local")(
        logprobs,
        torch.full_like(logprobs, -1.0).detach(),
        torch.tensor(advantages, dtype=torch.float64),
        torch.tensor(mask),
    )
    (gradient,) = torch.autograd.grad(local.per_token.sum(), logprobs)

    def numbers(index):
        rows = [[0.0 if e is None else e[index] for e in row] for row in expected]
        return torch.tensor(rows, dtype=torch.float64)

    torch.testing.assert_close(out.per_token.detach(), numbers(0), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, numbers(1), rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(out.weights, numbers(2), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", PRESETS)
def test_long_rows_equal_loops_in_float32(name, make_batch):
    scale = {"grpo": 0.3, "dapo": 0.3, "gspo": 0.005, "gspo-token": 0.005}.get(name, 0.03)
    logprobs, old_logprobs, advantages, mask = make_batch(4, 300, seed=3, scale=scale)
    out = preset(name)(logprobs, old_logprobs, advantages, mask)
    log_ratios = (logprobs.double() - old_logprobs.double()).tolist()
    for b in range(4):
        row = loop_row(
            name,
            log_ratios[b],
            logprobs[b].tolist(),
            [advantages[b].item()] * 300,
            mask[b].tolist(),
        )
        expected = torch.tensor([0.0 if e is None else e[0] for e in row])
        # Where rounding decides on which side of an edge a token falls, the loss can jump.
        clear = torch.tensor([e is None or all(abs(a - b) > 3e-6 for a, b in e[3]) for e in row])
        assert clear.float().mean() > 0.9
        torch.testing.assert_close(
            out.per_token[b].detach()[clear], expected[clear], rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("power", [-1.0, -0.5, 0.0, 0.3, 1.0])
def test_the_exponent_is_the_one_given(power):
    """The public code crashes at 0."""
    objective = preset("ctpo", power=power)
    log_ratios = torch.full((1, 9), 0.3, dtype=torch.float64)
    out = objective(log_ratios, torch.zeros_like(log_ratios), torch.ones(1), torch.ones(1, 9))
    expected = [-math.exp(min(0.3 * t, 0.05 * t**power)) for t in range(1, 10)]
    torch.testing.assert_close(out.per_token[0], torch.tensor(expected, dtype=torch.float64))
