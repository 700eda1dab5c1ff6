"""Group-normalised advantages."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctpo.objective import group_normalized

NAN = math.nan


def test_by_hand():
    # Means 2 and .25; unbiased standard deviations 1 and .5.
    rewards = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0, 0.0, 0.0, 0.0])
    groups = torch.tensor([7, 7, 7, 7, -2, -2, -2, -2])
    first = math.sqrt(2 / 3)
    expected = torch.tensor([-1 / first, 0, 1 / first, 0, 1.5, -0.5, -0.5, -0.5])
    for kwargs in ({"groups": groups}, {"group_size": 4}):
        torch.testing.assert_close(group_normalized(rewards, eps=0.0, **kwargs), expected)


@settings(max_examples=60, deadline=None)
@given(
    rewards=st.lists(
        st.sampled_from([0.0, 0.1, 0.3, 1.0, NAN]) | st.floats(-5, 5), min_size=1, max_size=12
    ),
    data=st.data(),
)
def test_equal_to_a_loop(rewards, data):
    groups = data.draw(
        st.lists(st.sampled_from([-1, 4, 9]), min_size=len(rewards), max_size=len(rewards))
    )
    eps = data.draw(st.sampled_from([1e-6, 1e-4, 0.5]))
    expected = []
    for reward, group in zip(rewards, groups, strict=True):
        scored = [
            r for r, g in zip(rewards, groups, strict=True) if g == group and not math.isnan(r)
        ]
        if math.isnan(reward) or len(set(scored)) == 1:
            expected.append(0.0)
        else:
            deviation = reward - statistics.fmean(scored)
            expected.append(deviation / (statistics.stdev(scored) + eps))
    result = group_normalized(
        torch.tensor(rewards, dtype=torch.float64), groups=torch.tensor(groups), eps=eps
    )
    torch.testing.assert_close(
        result, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_rewards_give_exactly_zero(value, dtype):
    """0.1 + 0.1 + 0.1 is not 0.3, so that the mean of equal rewards can differ from them."""
    rewards = torch.full((21,), value, dtype=dtype)
    for size in (1, 3, 7):
        assert (group_normalized(rewards, group_size=size, eps=0.0) == 0).all()


def test_an_unscored_answer_is_as_if_it_were_not_there():
    rewards = torch.tensor([1.0, NAN, 0.0, 0.0, NAN, NAN, 1.0, NAN])
    result = group_normalized(rewards, group_size=4)
    scored = group_normalized(torch.tensor([1.0, 0.0, 0.0]), group_size=3)
    assert torch.equal(result[[0, 2, 3]], scored)
    assert result[1] == 0
    # A group with a single scored answer, and one with none.
    assert (result[4:] == 0).all()
    assert (group_normalized(torch.full((2,), NAN), group_size=2) == 0).all()


def test_eps_is_added_to_the_standard_deviation():
    rewards = torch.tensor([0.0, 1.0])
    half = 0.5 / (math.sqrt(0.5) + 0.25)
    torch.testing.assert_close(
        group_normalized(rewards, group_size=2, eps=0.25), torch.tensor([-half, half])
    )


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.int64, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_dtype_of_the_result(dtype, expected):
    result = group_normalized(torch.tensor([0, 1, 1, 0], dtype=dtype), group_size=4)
    assert result.dtype == expected
    assert result.tolist() == pytest.approx([-0.8660254, 0.8660254, 0.8660254, -0.8660254], 1e-5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "exactly one of group_size and groups"),
        ({"group_size": 2, "groups": torch.zeros(4).long()}, "exactly one of"),
        ({"group_size": 3}, "group_size is 3; it must be a positive divisor .* 4"),
        ({"group_size": 0}, "group_size is 0"),
        ({"groups": torch.zeros(3).long()}, r"groups must be 4 integers.* got shape \[3\]"),
        ({"groups": torch.zeros(4)}, "groups must be 4 integers.* of torch.float32"),
        ({"group_size": 2, "eps": -1e-6}, "eps is -1e-06; it must be finite and at least 0"),
        ({"group_size": 2, "eps": NAN}, "eps is nan"),
    ],
)
def test_a_bad_argument_raises(kwargs, message):
    with pytest.raises(ValueError, match=message):
        group_normalized(torch.zeros(4), **kwargs)


def test_an_infinite_reward_raises():
    with pytest.raises(ValueError, match=r"rewards\[1\] is -inf"):
        group_normalized(torch.tensor([0.0, -math.inf]), group_size=2)


@pytest.mark.parametrize("shape", [(0,), (2, 2)])
def test_rewards_that_are_not_a_vector_raise(shape):
    with pytest.raises(ValueError, match=r"rewards must be \[N\]"):
        group_normalized(torch.zeros(shape), group_size=1)
