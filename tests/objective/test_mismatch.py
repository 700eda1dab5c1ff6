"""Weights against the generating engine: loops for every level and edge."""

import math
from typing import Any, Literal

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ctpo.objective import PRESETS, Mismatch, Objective, icepop, preset

LEVELS: tuple[Literal["token", "prefix", "sequence"], ...] = ("token", "prefix", "sequence")


def loop(log_k, mask, level, edge, cap, floor):
    """The weight of each place of a row, 0 where masked."""
    places = [i for i, m in enumerate(mask) if m]
    result = [0.0] * len(mask)
    for t, place in enumerate(places):
        which = {"token": [place], "prefix": places[: t + 1], "sequence": places}[level]
        weight = math.exp(sum(log_k[i] for i in which))
        if edge == "truncate":
            result[place] = min(weight, cap)
        else:
            result[place] = weight if floor <= weight <= cap else 0.0
    return result


@st.composite
def cases(draw):
    columns = draw(st.integers(1, 7))
    rows = draw(st.integers(1, 3))

    def table(element):
        row = st.lists(element, min_size=columns, max_size=columns)
        return draw(st.lists(row, min_size=rows, max_size=rows))

    edge = draw(st.sampled_from(["truncate", "mask"]))
    floor = draw(st.sampled_from([0.0, 0.5, 0.9])) if edge == "mask" else 0.0
    mismatch = Mismatch(
        level=draw(st.sampled_from(LEVELS)),
        edge=edge,
        cap=draw(st.sampled_from([1.0, 1.5, 5.0])),
        floor=floor,
    )
    log_k = table(st.floats(-1, 1, allow_subnormal=False))
    return mismatch, log_k, table(st.booleans())


@settings(max_examples=150, deadline=None, derandomize=True)
@given(case=cases(), name=st.sampled_from(["ctpo", "grpo", "cispo", "vespo", "gspo", "cppo"]))
def test_loss_and_gradient_are_those_without_it_times_the_weight(case, name):
    mismatch, log_k, mask = case
    weights = [
        loop(row, m, mismatch.level, mismatch.edge, mismatch.cap, mismatch.floor)
        for row, m in zip(log_k, mask, strict=True)
    ]
    for row in weights:
        for weight in row:
            assume(
                min(abs(weight - edge) for edge in (mismatch.cap, mismatch.floor or -1)) > 1e-9
                or weight == mismatch.cap
            )
    rows, columns = len(mask), len(mask[0])
    generator = torch.Generator().manual_seed(rows * 8 + columns)
    old = -torch.rand(rows, columns, generator=generator, dtype=torch.float64)
    shift = 0.1 * torch.rand(rows, columns, generator=generator, dtype=torch.float64)
    logprobs = (old + shift).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 0.5])[:rows]
    rollout = old - torch.tensor(log_k, dtype=torch.float64)

    plain = preset(name, gradient="token-local")(logprobs, old, advantages, torch.tensor(mask))
    out = preset(name, gradient="token-local", mismatch=mismatch)(
        logprobs, old, advantages, torch.tensor(mask), rollout_logprobs=rollout
    )
    factor = torch.tensor(weights, dtype=torch.float64)
    torch.testing.assert_close(out.per_token, plain.per_token * factor, rtol=1e-9, atol=1e-12)
    slopes = [torch.autograd.grad(x.per_token.sum(), logprobs)[0] for x in (out, plain)]
    torch.testing.assert_close(slopes[0], slopes[1] * factor, rtol=1e-9, atol=1e-12)
    # The weight in front of the advantage and the clips are the objective's own.
    assert torch.equal(out.weights, plain.weights)
    assert out.statistics.to_columns() == plain.statistics.to_columns()


def test_each_level_by_hand():
    k = [2.0, 0.5, 4.0]
    old = torch.tensor([[math.log(x) for x in k]], dtype=torch.float64)
    cases: Any = (
        ("token", "truncate", 3.0, 0.0, [2.0, 0.5, 3.0]),
        ("token", "mask", 3.0, 0.0, [2.0, 0.5, 0.0]),
        ("token", "mask", 5.0, 0.6, [2.0, 0.0, 4.0]),
        ("prefix", "truncate", 3.0, 0.0, [2.0, 1.0, 3.0]),
        ("prefix", "mask", 3.0, 0.0, [2.0, 1.0, 0.0]),
        ("sequence", "truncate", 5.0, 0.0, [4.0, 4.0, 4.0]),
        ("sequence", "truncate", 3.0, 0.0, [3.0, 3.0, 3.0]),
        ("sequence", "mask", 3.0, 0.0, [0.0, 0.0, 0.0]),
    )
    for level, edge, cap, floor, expected in cases:
        mismatch = Mismatch(level=level, edge=edge, cap=cap, floor=floor)
        objective = preset("grpo", mismatch=mismatch)
        out = objective(
            old, old, -torch.ones(1), torch.ones(1, 3), rollout_logprobs=torch.zeros(1, 3)
        )
        assert out.per_token[0].tolist() == pytest.approx(expected), (level, edge)


def test_icepop_is_its_published_weight():
    assert icepop() == Mismatch(level="token", edge="mask", floor=0.5, cap=5.0)
    assert icepop(floor=0.4, cap=2.0) == Mismatch(level="token", edge="mask", floor=0.4, cap=2.0)
    k = torch.tensor([[0.4, 0.6, 1.0, 4.9, 5.1]], dtype=torch.float64)
    out = preset("grpo", mismatch=icepop())(
        k.log(), k.log(), -torch.ones(1), torch.ones(1, 5), rollout_logprobs=torch.zeros(1, 5)
    )
    assert out.per_token[0].tolist() == pytest.approx([0.0, 0.6, 1.0, 4.9, 0.0])


def test_the_edge_is_decided_before_weights_are_capped_for_exp():
    """e^-200 underflows to 0 in float32, yet it is below the floor and not above the cap."""
    for level in LEVELS:
        for sign in (1, -1):
            out = preset("grpo", mismatch=Mismatch(level=level, edge="mask", floor=0.5))(
                torch.zeros(1, 2),
                torch.zeros(1, 2),
                torch.ones(1),
                torch.ones(1, 2),
                rollout_logprobs=torch.full((1, 2), sign * 200.0),
            )
            assert (out.per_token == 0).all()
    out = preset("grpo", mismatch=Mismatch(level="sequence"))(
        torch.zeros(1, 2),
        torch.zeros(1, 2),
        torch.ones(1),
        torch.ones(1, 2),
        rollout_logprobs=torch.full((1, 2), -200.0),
    )
    assert out.per_token.tolist() == [[-5.0, -5.0]]


def test_masked_rollout_logprobs_change_nothing(make_batch):
    logprobs, old_logprobs, advantages, mask = make_batch(5, 8)
    for level in LEVELS:
        objective = preset("ctpo", mismatch=Mismatch(level=level))
        results = []
        for filler in (0.0, math.nan, math.inf, -math.inf):
            rollout = torch.where(mask, old_logprobs - 0.1, filler)
            out = objective(logprobs, old_logprobs, advantages, mask, rollout_logprobs=rollout)
            (slope,) = torch.autograd.grad(out.per_token.sum(), logprobs)
            results.append((out.per_token, slope))
        for loss, slope in results[1:]:
            assert torch.equal(loss, results[0][0])
            assert torch.equal(slope, results[0][1])


def test_no_gradient_flows_through_the_weight(make_batch):
    logprobs, old_logprobs, advantages, mask = make_batch(3, 4)
    rollout = (old_logprobs - 0.1).requires_grad_()
    out = preset("ctpo", mismatch=Mismatch(level="prefix"))(
        logprobs, old_logprobs, advantages, mask, rollout_logprobs=rollout
    )
    out.mean("token-mean").backward()
    assert rollout.grad is None


@pytest.mark.parametrize("ratio", ["cumulative", "full-sequence"])
def test_a_literal_gradient_has_the_weight_of_the_later_token(ratio):
    """L_t = -ρ_t A k_t sends ρ_t A k_t to token j ≤ t, not ρ_t A k_j."""
    logprobs = torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64, requires_grad=True)
    k = [2.0, 0.5, 1.5]
    out = Objective(
        ratio=ratio, surrogate="plain", gradient="literal", mismatch=Mismatch(level="token")
    )(
        logprobs,
        torch.zeros(1, 3),
        torch.ones(1),
        torch.ones(1, 3),
        rollout_logprobs=-torch.tensor([k]).log(),
    )
    (slope,) = torch.autograd.grad(out.per_token.sum(), logprobs)
    rho = [math.exp(x) for x in ((0.1, 0.3, 0.6) if ratio == "cumulative" else (0.6, 0.6, 0.6))]
    terms = [-r * weight for r, weight in zip(rho, k, strict=True)]
    expected = [sum(terms[j:]) for j in range(3)] if ratio == "cumulative" else [sum(terms)] * 3
    assert slope[0].tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", PRESETS)
def test_engines_that_agree_change_nothing(name, make_batch, scale_of):
    logprobs, old_logprobs, advantages, mask = make_batch(4, 6, scale=scale_of(name))
    plain = preset(name)(logprobs, old_logprobs, advantages, mask)
    for mismatch in (icepop(), *(Mismatch(level=level) for level in LEVELS)):
        out = preset(name, mismatch=mismatch)(
            logprobs, old_logprobs, advantages, mask, rollout_logprobs=old_logprobs
        )
        torch.testing.assert_close(out.per_token, plain.per_token)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"level": "tokens"}, "unknown level 'tokens'; did you mean 'token'"),
        ({"level": "seq"}, "unknown level 'seq'; did you mean 'sequence'"),
        ({"level": "token", "edge": "truncated"}, "unknown edge 'truncated'; did you mean 'trunc"),
        ({"level": "token", "cap": 0.5}, "Mismatch.cap is 0.5; it must be finite and at least 1"),
        ({"level": "token", "cap": math.inf}, "Mismatch.cap is inf; it must be finite"),
        ({"level": "token", "cap": math.nan}, "Mismatch.cap is nan"),
        (
            {"level": "token", "edge": "mask", "floor": 1.5},
            "Mismatch.floor is 1.5; it must be between 0 and 1",
        ),
        ({"level": "token", "edge": "mask", "floor": -0.1}, "Mismatch.floor is -0.1"),
        (
            {"level": "token", "floor": 0.5},
            "Mismatch.floor is 0.5; it must be 0 with edge='truncate', where it would have no",
        ),
    ],
)
def test_a_bad_parameter_raises(parameters, message):
    with pytest.raises(ValueError, match=message):
        Mismatch(**parameters)


def test_rollout_logprobs_are_given_exactly_where_they_are_used(make_batch):
    inputs = make_batch(2, 3)
    with pytest.raises(ValueError, match="rollout_logprobs has no effect without a mismatch"):
        preset("ctpo")(*inputs, rollout_logprobs=inputs[1])
    with pytest.raises(ValueError, match=r"Mismatch\(level='prefix'.* needs rollout_logprobs"):
        preset("ctpo", mismatch=Mismatch(level="prefix"))(*inputs)


@pytest.mark.parametrize(
    ("rollout", "error", "message"),
    [
        (torch.zeros(2, 4), ValueError, "rollout_logprobs must have the shape of logprobs"),
        (torch.zeros(2, 3).long(), TypeError, "rollout_logprobs must be floating point"),
        ([torch.zeros(3)] * 2, TypeError, "rollout_logprobs must be a torch.Tensor, got list"),
    ],
)
def test_rollout_logprobs_that_do_not_fit_raise(rollout, error, message, make_batch):
    with pytest.raises(error, match=message):
        preset("ctpo", mismatch=icepop())(*make_batch(2, 3), rollout_logprobs=rollout)
