"""Windows and their union with ratios: bounds, and choices that are refused."""

import math

import pytest
import torch

from ctpo.objective import (
    ClippedSurrogate,
    CumulativeRatio,
    FullSequenceRatio,
    LogWindow,
    Objective,
    RatioWindow,
    SequenceGeometricMeanRatio,
    TokenRatio,
    preset,
)

FACTORS = torch.tensor([[1.0, 4.0, 9.0]])


def test_log_window_widens_with_the_factors():
    bounds = LogWindow(eps_low=0.025, eps_high=0.05, power=0.5, dual_clip=0.1).bounds(FACTORS)
    torch.testing.assert_close(bounds.low, torch.tensor([[-0.025, -0.05, -0.075]]))
    torch.testing.assert_close(bounds.high, torch.tensor([[0.05, 0.1, 0.15]]))
    torch.testing.assert_close(bounds.dual, torch.tensor([[0.1, 0.2, 0.3]]))


def test_ratio_window_is_fixed():
    bounds = RatioWindow(clip_low=0.5, clip_high=4.0, dual_clip=3.0).bounds(FACTORS)
    torch.testing.assert_close(bounds.low, torch.full((1, 3), -0.6931472))
    torch.testing.assert_close(bounds.high, torch.full((1, 3), 1.6094379))
    torch.testing.assert_close(bounds.dual, torch.full((1, 3), 1.0986123))


@pytest.mark.parametrize(
    "window",
    [
        LogWindow(eps_low=math.inf, eps_high=math.inf, power=0.5),
        RatioWindow(clip_low=1.0, clip_high=math.inf),
    ],
)
def test_an_open_window_clips_nothing(window):
    objective = Objective(ratio=CumulativeRatio(), window=window)
    logprobs = torch.tensor([[9.0, -20.0], [-9.0, 20.0]], requires_grad=True)
    advantages = torch.tensor([1.0, -1.0])
    out = objective(logprobs, torch.zeros(2, 2), advantages, torch.ones(2, 2))
    out.per_token.sum().backward()
    expected = torch.tensor([[9.0, -11.0], [-9.0, 11.0]]).exp() * -advantages[:, None]
    torch.testing.assert_close(logprobs.grad, expected)


LOG = {"eps_low": 0.025, "eps_high": 0.05, "power": 0.5, "dual_clip": 0.05}
RATIO = {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": 3.0}


@pytest.mark.parametrize(
    ("window", "good", "field", "value", "right"),
    [
        (LogWindow, LOG, "eps_low", -0.1, "at least 0, e.g. 0.025"),
        (LogWindow, LOG, "eps_low", math.nan, "at least 0"),
        (LogWindow, LOG, "eps_high", -1e-9, "at least 0, e.g. 0.05"),
        (LogWindow, LOG, "power", -0.5, "finite and at least 0, e.g. 0.5"),
        (LogWindow, LOG, "power", math.inf, "finite"),
        (LogWindow, LOG, "dual_clip", 0.0, "None to switch"),
        (LogWindow, LOG, "dual_clip", -0.05, "above 0, e.g. 0.05"),
        (LogWindow, LOG, "dual_clip", math.inf, "None to switch"),
        (RatioWindow, RATIO, "clip_low", -0.2, "between 0 and 1, e.g. 0.2"),
        (RatioWindow, RATIO, "clip_low", 1.1, "between 0 and 1"),
        (RatioWindow, RATIO, "clip_high", -0.28, "at least 0, e.g. 0.28"),
        (RatioWindow, RATIO, "dual_clip", 1.0, "ratio above 1, e.g. 3.0"),
        (RatioWindow, RATIO, "dual_clip", math.inf, "None to switch"),
    ],
)
def test_a_bad_parameter_names_field_value_and_what_is_right(window, good, field, value, right):
    assert getattr(window(**good), field) == good[field]
    with pytest.raises(ValueError) as error:
        window(**{**good, field: value})
    assert f"{window.__name__}.{field} is {value!r}; it must be " in str(error.value)
    assert right in str(error.value)


def test_a_negative_override_raises_as_well():
    with pytest.raises(ValueError, match=r"LogWindow\.eps_high is -0\.05"):
        preset("ctpo", eps_high=-0.05)


@pytest.mark.parametrize("ratio", [TokenRatio(), SequenceGeometricMeanRatio()])
def test_power_without_effect_raises(ratio):
    window = LogWindow(eps_low=0.2, eps_high=0.2, power=0.5)
    with pytest.raises(ValueError, match="power would have no effect; set power=0"):
        Objective(ratio=ratio, window=window)
    fixed = LogWindow(eps_low=0.2, eps_high=0.2, power=0)
    assert Objective(ratio=ratio, window=fixed).window == fixed


@pytest.mark.parametrize("ratio", [CumulativeRatio(), FullSequenceRatio()])
def test_power_with_effect_is_accepted(ratio):
    window = LogWindow(eps_low=0.2, eps_high=0.2, power=0.5)
    assert Objective(ratio=ratio, window=window).surrogate == ClippedSurrogate()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("ratio", TokenRatio), ("window", TokenRatio()), ("surrogate", "clip")],
)
def test_a_choice_of_the_wrong_kind_raises(name, wrong):
    parts = {"ratio": TokenRatio(), "window": RatioWindow(clip_low=0.2, clip_high=0.2)}
    with pytest.raises(TypeError, match=f"{name} must be an instance of {name.capitalize()}"):
        Objective(**{**parts, name: wrong})
