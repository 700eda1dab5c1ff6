"""Windows: bounds, statistics, and parameters that are refused."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from ctpo.objective import (
    CumulativeRatio,
    DriftFreeWindow,
    KLWindow,
    LogWindow,
    Mismatch,
    Objective,
    RatioWindow,
    fixed,
    preset,
    sqrt,
)

FACTORS = torch.tensor([[1.0, 4.0, 9.0]])


def full(bounds):
    """Bounds may broadcast."""
    return [bound.expand_as(FACTORS) for bound in bounds]


def test_log_window_widens_with_the_factors():
    window = LogWindow(eps_low=0.025, eps_high=0.05, power=0.5, dual_clip=0.1)
    low, high, dual = full(window.bounds(FACTORS))
    torch.testing.assert_close(low, torch.tensor([[-0.025, -0.05, -0.075]]))
    torch.testing.assert_close(high, torch.tensor([[0.05, 0.1, 0.15]]))
    torch.testing.assert_close(dual, torch.tensor([[0.1, 0.2, 0.3]]))
    assert window == sqrt(0.025, 0.05, dual_clip=0.1)


def test_log_window_of_a_negative_power_narrows():
    window = LogWindow(eps_low=0.3, eps_high=0.6, power=-0.5)
    # A masked place before the first policy token has no factors.
    low, high, dual = full(window.bounds(torch.tensor([[0, 4, 9]])))
    torch.testing.assert_close(low, torch.tensor([[-0.3, -0.15, -0.1]]))
    torch.testing.assert_close(high, torch.tensor([[0.6, 0.3, 0.2]]))
    assert (dual == math.inf).all()


def test_log_window_of_power_zero_is_fixed():
    window = LogWindow(eps_low=0.3, eps_high=0.6, power=0)
    assert not window.follows_position
    low, high, _ = full(window.bounds(FACTORS))
    assert (low == torch.tensor(-0.3)).all() and (high == torch.tensor(0.6)).all()


def test_ratio_window_is_fixed():
    window = RatioWindow(clip_low=0.5, clip_high=4.0, dual_clip=3.0)
    low, high, dual = full(window.bounds(FACTORS))
    torch.testing.assert_close(low, torch.full((1, 3), -0.6931472))
    torch.testing.assert_close(high, torch.full((1, 3), 1.6094379))
    torch.testing.assert_close(dual, torch.full((1, 3), 1.0986123))
    assert window == fixed(0.5, 4.0, dual_clip=3.0)
    assert not window.follows_position


def test_drift_free_window_has_the_bounds_of_the_log_window():
    mine = DriftFreeWindow(eps_low=0.025, eps_high=0.05, power=0.5, dual_clip=0.1)
    for bound, other in zip(
        mine.bounds(FACTORS), sqrt(0.025, 0.05, dual_clip=0.1).bounds(FACTORS), strict=True
    ):
        assert torch.equal(bound, other)


def test_kl_window_bounds_the_divergence():
    """The statistic is the signed root of it, and so are the bounds."""
    window = KLWindow(delta_low=0.0004, delta_high=0.0009, delta_dual=0.0016)
    low, high, dual = full(window.bounds(FACTORS))
    torch.testing.assert_close(low, torch.tensor([[-0.02, -0.04, -0.06]]))
    torch.testing.assert_close(high, torch.tensor([[0.03, 0.06, 0.09]]))
    torch.testing.assert_close(dual, torch.tensor([[0.04, 0.08, 0.12]]))

    log_weight = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    statistic = window.statistic(log_weight, log_weight, None)  # type: ignore[arg-type]
    divergence = log_weight.exp() - 1 - log_weight
    torch.testing.assert_close(statistic.square(), divergence, rtol=1e-5, atol=1e-15)
    assert (statistic.diff() > 0).all()
    single = window.statistic(log_weight.float(), log_weight, None)  # type: ignore[arg-type]
    torch.testing.assert_close(single.double(), statistic, rtol=1e-4, atol=1e-7)


def test_kl_window_is_the_sqrt_window_to_second_order():
    eps = 1e-4
    clipped = {}
    log_rho = torch.linspace(-3, 3, 601, dtype=torch.float64)[None, :] * eps
    for name, window in (
        ("kl", KLWindow(delta_low=eps**2 / 2, delta_high=eps**2 / 2)),
        ("sqrt", sqrt(eps, eps)),
    ):
        objective = Objective(ratio="cumulative", window=window)
        logprobs = log_rho.T.clone().requires_grad_()
        out = objective(logprobs, torch.zeros_like(logprobs), torch.ones(601), torch.ones(601, 1))
        (slope,) = torch.autograd.grad(out.per_token.sum(), logprobs)
        clipped[name] = slope[:, 0] == 0
    assert (clipped["kl"] != clipped["sqrt"]).sum() <= 1
    assert clipped["kl"].any()


@pytest.mark.parametrize(
    "window",
    [
        LogWindow(eps_low=math.inf, eps_high=math.inf, power=0.5),
        RatioWindow(clip_low=1.0, clip_high=math.inf),
        DriftFreeWindow(eps_low=math.inf, eps_high=math.inf),
        KLWindow(delta_low=math.inf, delta_high=math.inf),
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
KL = {"delta_low": 0.001, "delta_high": 0.002, "delta_dual": 0.002}


@pytest.mark.parametrize(
    ("window", "good", "field", "value", "right"),
    [
        (LogWindow, LOG, "eps_low", -0.1, "at least 0, e.g. 0.025"),
        (LogWindow, LOG, "eps_low", math.nan, "at least 0"),
        (LogWindow, LOG, "eps_high", -1e-9, "at least 0, e.g. 0.05"),
        (LogWindow, LOG, "power", math.nan, "finite, e.g. 0.5"),
        (LogWindow, LOG, "power", math.inf, "finite"),
        (LogWindow, LOG, "power", -math.inf, "finite"),
        (LogWindow, LOG, "dual_clip", 0.0, "None to switch"),
        (LogWindow, LOG, "dual_clip", -0.05, "above 0, e.g. 0.05"),
        (LogWindow, LOG, "dual_clip", math.inf, "None to switch"),
        (RatioWindow, RATIO, "clip_low", -0.2, "between 0 and 1, e.g. 0.2"),
        (RatioWindow, RATIO, "clip_low", 1.1, "between 0 and 1"),
        (RatioWindow, RATIO, "clip_high", -0.28, "at least 0, e.g. 0.28"),
        (RatioWindow, RATIO, "dual_clip", 1.0, "ratio above 1, e.g. 3.0"),
        (RatioWindow, RATIO, "dual_clip", math.inf, "None to switch"),
        (DriftFreeWindow, LOG, "eps_low", -0.1, "at least 0, e.g. 0.025"),
        (DriftFreeWindow, LOG, "eps_high", math.nan, "at least 0, e.g. 0.05"),
        (DriftFreeWindow, LOG, "power", math.inf, "finite, e.g. 0.5"),
        (DriftFreeWindow, LOG, "dual_clip", 0.0, "None to switch"),
        (KLWindow, KL, "delta_low", -1e-3, "at least 0, e.g. 0.00125"),
        (KLWindow, KL, "delta_high", math.nan, "at least 0, e.g. 0.00125"),
        (KLWindow, KL, "delta_dual", 0.0, "None to switch"),
        (KLWindow, KL, "delta_dual", math.inf, "None to switch"),
    ],
)
def test_a_bad_parameter_names_field_value_and_what_is_right(window, good, field, value, right):
    assert getattr(window(**good), field) == good[field]
    with pytest.raises(ValueError) as error:
        window(**{**good, field: value})
    assert f"{window.__name__}.{field} is {value!r}; it must be " in str(error.value)
    assert right in str(error.value)


@pytest.mark.parametrize("value", ["0.03", "off", True, None, torch.tensor(0.1), [0.1]])
def test_a_parameter_that_is_no_number_is_named(value):
    for make in (
        lambda: preset("ctpo", eps_low=value),
        lambda: preset("grpo", clip_high=value),
        lambda: preset("ctpo-exact-kl", delta_low=value),
        lambda: preset("sapo", tau_pos=value),
        lambda: Mismatch(level="token", cap=value),
    ):
        with pytest.raises(TypeError, match=r"\.\w+ is .*; it must be a number$"):
            make()
    if value is not None:
        with pytest.raises(TypeError, match="LogWindow.dual_clip is .*; it must be a number or No"):
            preset("ctpo", dual_clip=value)


def test_any_kind_of_number_will_do():
    one = preset("ctpo", eps_low=1, eps_high=np.float32(0.5), dual_clip=Fraction(1, 2))  # type: ignore[call-overload]
    assert one.window == preset("ctpo", eps_low=1.0, eps_high=0.5, dual_clip=0.5).window


def test_a_negative_override_raises_as_well():
    with pytest.raises(ValueError, match=r"LogWindow\.eps_high is -0\.05"):
        preset("ctpo", eps_high=-0.05)
