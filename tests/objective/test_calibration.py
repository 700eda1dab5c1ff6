"""calibrate(): the window it returns clips as much as was wanted, here and on fresh data."""

import math

import pytest
import torch

from ctpo.objective import LogWindow, Objective, calibrate, preset


def trajectories(seed, rows=300, columns=100, correlation=0.0, drift=0.0):
    """Log ratios of spread .03 whose neighbours are correlated; of random length."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    if correlation:
        steps = [noise[:, 0]]
        for t in range(1, columns):
            rest = math.sqrt(1 - correlation**2)
            steps.append(correlation * steps[-1] + rest * noise[:, t])
        noise = torch.stack(steps, dim=1)
    old = -torch.rand(rows, columns, generator=generator, dtype=torch.float64)
    lengths = torch.randint(20, columns + 1, (rows,), generator=generator)
    mask = torch.arange(columns)[None, :] < lengths[:, None]
    mask &= torch.rand(rows, columns, generator=generator) < 0.9
    advantages = torch.randn(rows, generator=generator, dtype=torch.float64)
    return old + 0.03 * noise + drift, old, advantages, mask


def clip_rates(window, batch):
    """Shares that the objective really clips: high of A > 0; low and dual of A < 0."""
    statistics = Objective(ratio="cumulative", window=window)(*batch).statistics
    positive, negative = statistics.positive_tokens.sum(), statistics.negative_tokens.sum()
    return (
        float(statistics.clipped_high.sum() / positive),
        float(statistics.clipped_low.sum() / negative),
        float(statistics.clipped_dual.sum() / negative),
    )


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("power", [0.0, 0.5, None])
@pytest.mark.parametrize("drift", [0.0, -5e-4])
def test_the_window_clips_what_was_wanted(rate, power, drift):
    batch = trajectories(1, drift=drift)
    result = calibrate(*batch, clip_rate=rate, power=power)
    tokens = int(batch[3].sum())
    assert result.tokens == tokens
    stated = (result.clip_high, result.clip_low, result.clip_dual)
    assert clip_rates(result.window, batch) == pytest.approx(stated, abs=2 / tokens)
    assert stated == pytest.approx([rate] * 3, abs=2e-4)


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_it_clips_as_much_on_fresh_data_of_the_same_kind(correlation):
    recorded = trajectories(2, rows=600, correlation=correlation)
    result = calibrate(*recorded, clip_rate=0.05, power=None)
    # Tokens of a trajectory move together: a rate over 600 of them has a standard error near .7 %.
    fresh = trajectories(3, rows=600, correlation=correlation)
    assert clip_rates(result.window, fresh) == pytest.approx([0.05] * 3, abs=0.025)


def test_quantiles_by_hand():
    """One token each, t = 1: log ρ = -.1 … .1 with A > 0, the same with A < 0."""
    values = torch.linspace(-0.1, 0.1, 101, dtype=torch.float64)
    logprobs = torch.cat([values, values])[:, None]
    advantages = torch.cat([torch.ones(101), -torch.ones(101)])
    result = calibrate(
        logprobs, torch.zeros_like(logprobs), advantages, torch.ones(202, 1), clip_rate=0.1
    )
    assert result.window.eps_high == pytest.approx(0.08)
    assert result.window.eps_low == pytest.approx(0.08)
    assert result.window.dual_clip == pytest.approx(0.08)
    assert result.window.power == 0.5
    assert math.isnan(result.power_error)
    assert (result.clip_high, result.clip_low, result.clip_dual) == pytest.approx([10 / 101] * 3)


@pytest.mark.parametrize("seed", range(3))
def test_a_fitted_power_is_one_half_for_independent_ratios(seed):
    result = calibrate(*trajectories(seed, rows=800), power=None)
    assert result.window.power == pytest.approx(0.5, abs=0.06)
    assert 0 < result.power_error < 0.03


def test_a_fitted_power_is_larger_where_neighbours_are_correlated():
    powers = [
        calibrate(*trajectories(4, rows=800, correlation=c), power=None).window.power
        for c in (0.0, 0.5, 0.95)
    ]
    assert powers[0] < powers[1] < powers[2]
    assert powers[2] > 0.7


def test_a_fitted_power_is_one_where_each_sequence_drifts_its_own_way():
    generator = torch.Generator().manual_seed(0)
    drifts = 0.01 * torch.randn(400, 1, generator=generator, dtype=torch.float64)
    log_r = drifts.expand(400, 50)
    advantages = torch.tensor([1.0, -1.0] * 200)
    result = calibrate(log_r, torch.zeros(400, 50), advantages, torch.ones(400, 50), power=None)
    assert result.window.power == pytest.approx(1.0, abs=1e-6)
    assert result.power_error == pytest.approx(0.0, abs=1e-6)


def test_with_the_fitted_power_the_clip_rate_is_flatter_in_t():
    """What the power is for: a fixed window clips late tokens ever more often."""
    batch = trajectories(5, rows=800)
    spread = {}
    for power in (0.0, None):
        window = calibrate(*batch, clip_rate=0.1, power=power).window
        columns = Objective(ratio="cumulative", window=window)(*batch).statistics.to_columns()
        rates = [
            high / positive
            for high, positive, t in zip(
                columns["clipped_high"],
                columns["positive_tokens"],
                columns["position_low"],
                strict=True,
            )
            if 3 <= t <= 64
        ]
        spread[power] = max(rates) - min(rates)
    assert spread[None] < spread[0.0] / 2


def test_the_window_fits_into_the_preset():
    window = calibrate(*trajectories(6)).window
    objective = preset(
        "ctpo", eps_low=window.eps_low, eps_high=window.eps_high, dual_clip=window.dual_clip
    )
    assert objective.window == window
    assert isinstance(window, LogWindow)


def test_a_one_sided_drift_leaves_no_negative_width():
    """All log ρ above 0: nothing below can be clipped, and the lower bound stays at 1."""
    log_r = torch.full((40, 3), 0.01, dtype=torch.float64)
    advantages = torch.tensor([1.0, -1.0] * 20)
    result = calibrate(log_r, torch.zeros(40, 3), advantages, torch.ones(40, 3))
    assert result.window.eps_low == 0.0
    assert result.window.eps_high > 0
    assert result.clip_low == 0.0


def test_masked_tokens_do_not_count():
    logprobs, old, advantages, mask = trajectories(7)
    poisoned = torch.where(mask, logprobs, math.nan)
    assert calibrate(poisoned, old, advantages, mask) == calibrate(logprobs, old, advantages, mask)


def good():
    return dict(
        zip(("logprobs", "old_logprobs", "advantages", "mask"), trajectories(8, 8, 40), strict=True)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip_rate": 0.0}, "clip_rate is 0.0; it must be between 0 and 1, e.g. 0.05"),
        ({"clip_rate": 1.0}, "clip_rate is 1.0"),
        ({"clip_rate": "0.1"}, "clip_rate is '0.1'"),
        ({"power": math.nan}, "power is nan; it must be finite, e.g. 0.5, or None to fit it"),
        ({"power": "0.5"}, "power is '0.5'"),
        ({"clip_rate": math.nan}, "clip_rate is nan"),
        ({"advantages": torch.ones(8)}, "no token has an advantage < 0; both signs are needed"),
        ({"advantages": -torch.ones(8)}, "no token has an advantage > 0"),
        ({"power": None}, "only 0 positions have at least 16 tokens with a spread; three are"),
        ({"mask": torch.ones(8, 39)}, "mask must have the shape of logprobs"),
    ],
)
def test_what_cannot_be_calibrated_raises(change, message):
    calibrate(**good())
    with pytest.raises(ValueError, match=message):
        calibrate(**{**good(), **change})


def test_a_policy_that_has_not_moved_raises():
    inputs = good()
    inputs["logprobs"] = inputs["old_logprobs"]
    with pytest.raises(ValueError, match="log rho is 0 at every token: the policy has not moved"):
        calibrate(**inputs)


def test_values_are_always_checked():
    inputs = good()
    row, column = inputs["mask"].nonzero()[3].tolist()
    inputs["logprobs"][row, column] = math.nan
    with pytest.raises(ValueError, match=f"logprobs at row {row}, position {column} is nan"):
        calibrate(**inputs)


def test_an_empty_mask_raises():
    with pytest.raises(ValueError, match="policy tokens|has not moved"):
        calibrate(**{**good(), "mask": torch.zeros(8, 40)})
