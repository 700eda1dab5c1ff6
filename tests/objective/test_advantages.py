"""Advantages from the rewards of a group."""

import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctpo.objective import group_centered, group_normalized, leave_one_out

NAN = math.nan
ALL = [group_normalized, group_centered, leave_one_out]


def advantages(function, *args, eps=0.0, **kwargs):
    """Only one of them divides by a standard deviation."""
    if function is group_normalized:
        kwargs["eps"] = eps
    return function(*args, **kwargs)


def test_by_hand():
    # Means 2 and .25; unbiased standard deviations 1 and .5.
    rewards = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0, 0.0, 0.0, 0.0])
    groups = torch.tensor([7, 7, 7, 7, -2, -2, -2, -2])
    first = math.sqrt(2 / 3)
    expected = torch.tensor([-1 / first, 0, 1 / first, 0, 1.5, -0.5, -0.5, -0.5])
    for kwargs in ({"groups": groups}, {"group_size": 4}):
        torch.testing.assert_close(group_normalized(rewards, eps=0.0, **kwargs), expected)
        centered = torch.tensor([-1.0, 0.0, 1.0, 0.0, 0.75, -0.25, -0.25, -0.25])
        torch.testing.assert_close(group_centered(rewards, **kwargs), centered)
        # 1 - (2 + 3 + 2)/3 and so on; 1 - 0; 0 - 1/3.
        others = torch.tensor([-4 / 3, 0.0, 4 / 3, 0.0, 1.0, -1 / 3, -1 / 3, -1 / 3])
        torch.testing.assert_close(leave_one_out(rewards, **kwargs), others)


@settings(max_examples=60, deadline=None, derandomize=True)
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
    expected: dict = {function: [] for function in ALL}
    for i, (reward, group) in enumerate(zip(rewards, groups, strict=True)):
        scored = [
            r for r, g in zip(rewards, groups, strict=True) if g == group and not math.isnan(r)
        ]
        if math.isnan(reward) or len(set(scored)) == 1:
            for function in ALL:
                expected[function].append(0.0)
            continue
        deviation = reward - statistics.fmean(scored)
        expected[group_centered].append(deviation)
        expected[group_normalized].append(deviation / (statistics.stdev(scored) + eps))
        others = [
            r
            for j, (r, g) in enumerate(zip(rewards, groups, strict=True))
            if j != i and g == group and not math.isnan(r)
        ]
        expected[leave_one_out].append(reward - statistics.fmean(others))
    for function in ALL:
        result = advantages(
            function,
            torch.tensor(rewards, dtype=torch.float64),
            groups=torch.tensor(groups),
            eps=eps,
        )
        torch.testing.assert_close(
            result, torch.tensor(expected[function], dtype=torch.float64), rtol=1e-6, atol=1e-9
        )


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", ALL)
def test_equal_rewards_give_exactly_zero(function, value, dtype):
    """0.1 + 0.1 + 0.1 is not 0.3, so that the mean of equal rewards can differ from them."""
    rewards = torch.full((21,), value, dtype=dtype)
    for size in (1, 3, 7):
        assert (advantages(function, rewards, group_size=size) == 0).all()


@pytest.mark.parametrize("function", ALL)
def test_an_unscored_answer_is_as_if_it_were_not_there(function):
    rewards = torch.tensor([1.0, NAN, 0.0, 0.0, NAN, NAN, 1.0, NAN])
    result = function(rewards, group_size=4)
    scored = function(torch.tensor([1.0, 0.0, 0.0]), group_size=3)
    assert torch.equal(result[[0, 2, 3]], scored)
    assert result[1] == 0
    # A group with a single scored answer, and one with none.
    assert (result[4:] == 0).all()
    assert (function(torch.full((2,), NAN), group_size=2) == 0).all()


def test_eps_is_added_to_the_standard_deviation():
    rewards = torch.tensor([0.0, 1.0])
    half = 0.5 / (math.sqrt(0.5) + 0.25)
    torch.testing.assert_close(
        group_normalized(rewards, group_size=2, eps=0.25), torch.tensor([-half, half])
    )


@pytest.mark.parametrize("function", ALL)
def test_groups_need_not_stand_together(function):
    rewards = torch.tensor([1.0, 0.0, 0.5, 0.0, 1.0, 0.5, 1.0, 0.25])
    order = torch.tensor([5, 0, 3, 6, 1, 7, 2, 4])
    together = function(rewards, group_size=4)
    apart = function(rewards[order], groups=(torch.arange(8) // 4)[order])
    torch.testing.assert_close(apart, together[order])
    assert together.view(2, 4).sum(dim=1).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


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
        ({"group_size": 2, "eps": "1e-6"}, "eps is '1e-6'"),
        ({"group_size": 2, "eps": True}, "eps is True"),
    ],
)
def test_a_bad_argument_raises(kwargs, message):
    for function in ALL if "eps" not in kwargs else [group_normalized]:
        with pytest.raises(ValueError, match=message):
            function(torch.zeros(4), **kwargs)


@pytest.mark.parametrize("function", ALL)
def test_an_infinite_reward_raises(function):
    with pytest.raises(ValueError, match=r"rewards\[1\] is -inf"):
        function(torch.tensor([0.0, -math.inf]), group_size=2)


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("shape", [(0,), (2, 2)])
def test_rewards_that_are_not_a_vector_raise(function, shape):
    with pytest.raises(ValueError, match=r"rewards must be \[N\]"):
        function(torch.zeros(shape), group_size=1)


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize(
    ("rewards", "kwargs", "message"),
    [
        ([1.0, 0.0], {"group_size": 2}, "rewards must be a torch.Tensor, got list"),
        (torch.ones(2), {"groups": [0, 0]}, "groups must be a torch.Tensor, got list"),
        (torch.ones(2), {"group_size": 2.0}, "group_size must be an integer, got 2.0"),
        (torch.ones(2), {"group_size": True}, "group_size must be an integer, got True"),
    ],
)
def test_what_is_of_another_type_is_named(function, rewards, kwargs, message):
    with pytest.raises(TypeError, match=message):
        function(rewards, **kwargs)
