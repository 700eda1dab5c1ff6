from dataclasses import replace

import numpy as np
import pytest

from ctpo.report.positions import COLUMNS, MIN_TOKENS, Positions, fit_spread
from ctpo.report.reading import read_run
from ctpo.report.words import notes


def positions(run_dir):
    found = read_run(run_dir).positions
    assert found is not None
    return found


def test_a_spread_of_sigma_root_t_gives_sigma_and_one_half(run_dir):
    fit = fit_spread(positions(run_dir).pool())
    assert fit.sigma == pytest.approx(0.037, rel=1e-4)
    assert fit.power == pytest.approx(0.5, abs=1e-4)


def test_the_free_exponent_is_that_of_the_data(run_dir, rewrite_positions):
    rewrite_positions(power=0.8)
    assert fit_spread(positions(run_dir).pool()).power == pytest.approx(0.8, abs=1e-4)


def test_no_spread_at_all_has_no_exponent(run_dir, rewrite_positions):
    rewrite_positions(sigma=0.0, drift=0.0)
    fit = fit_spread(positions(run_dir).pool())
    assert fit.sigma == 0
    assert np.isnan(fit.power)


def test_drift_is_recovered_and_is_no_part_of_the_spread(run_dir):
    pooled = positions(run_dir).pool()
    np.testing.assert_allclose(pooled.mean, -0.0004 * pooled.position)
    np.testing.assert_allclose(pooled.std, 0.037 * np.sqrt(pooled.position), rtol=1e-4)


def test_clip_rates_are_shares_of_all_tokens(run_dir):
    pooled = positions(run_dir).pool()
    np.testing.assert_allclose(pooled.clip_high, 0.03)
    np.testing.assert_allclose(pooled.clip_low, 0.05)
    np.testing.assert_allclose(pooled.clip_dual, 0.01)
    np.testing.assert_allclose(pooled.clip_total, 0.09)


def test_a_bin_stands_at_the_mean_of_its_positions(run_dir):
    pooled = positions(run_dir).pool()
    np.testing.assert_array_equal(pooled.position[:64], np.arange(1, 65))
    assert pooled.position[65] == 76.5  # positions 73..80


def test_pooling_adds_batches_up(run_dir, rewrite_positions):
    rewrite_positions(sigma=0.01, batches=[1])
    rewrite_positions(sigma=0.03, batches=[2], tokens=60_000, append=True)
    pooled = positions(run_dir).pool()
    assert pooled.tokens[0] == 80_000
    # A quarter of the tokens has one variance and three quarters the other.
    expected = 0.25 * 0.01**2 + 0.75 * 0.03**2
    assert pooled.std[0] ** 2 == pytest.approx(expected, rel=1e-4)
    only_second = positions(run_dir).pool(np.array([2]))
    assert only_second.std[0] == pytest.approx(0.03, rel=1e-4)


def test_nearly_empty_bins_are_left_out(run_dir, rewrite_positions):
    rewrite_positions(batches=[1], tokens=MIN_TOKENS - 1)
    assert len(positions(run_dir).pool().position) == 0


def test_thirds_cover_every_batch_once(run_dir):
    parts = positions(run_dir).thirds()
    assert [list(part) for part in parts] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]


def test_a_run_of_two_batches_has_two_parts(run_dir, rewrite_positions):
    rewrite_positions(batches=[1, 2])
    assert [list(part) for part in positions(run_dir).thirds()] == [[1], [2]]


def test_positions_that_hardly_any_response_reaches_are_left_out():
    def column(first, second):
        return np.array([first, second])

    columns = {name: column(0.0, 0.0) for name in COLUMNS}
    columns |= {
        "batch": column(1, 1),
        "position_low": column(1, 65),
        "position_high": column(1, 72),
        # 10,000 responses begin; 8 positions with 200 tokens each are reached by one in fifty.
        "tokens": column(10_000, 1600),
    }
    assert Positions(columns).pool().position.tolist() == [1.0, 68.5]
    columns["tokens"] = column(10_000, 1592)
    assert Positions(columns).pool().position.tolist() == [1.0]


def test_an_interval_is_as_wide_as_batches_differ(run_dir, rewrite_positions):
    same = positions(run_dir).pool()
    for ends in same.intervals["clip_total"]:
        np.testing.assert_allclose(ends, 0.09)
    rewrite_positions(sigma=0.01, batches=range(1, 9))
    rewrite_positions(sigma=0.03, batches=range(9, 17), append=True)
    low, high = positions(run_dir).pool().intervals["std"]
    root = np.sqrt(positions(run_dir).pool().position)
    # Of sixteen batches half are drawn on average, 4 to 12 in 97.9 % of the draws.
    variance = [(n * 0.03**2 + (16 - n) * 0.01**2) / 16 for n in (4, 12)]
    np.testing.assert_allclose(low / root, variance[0] ** 0.5, rtol=0.1)
    np.testing.assert_allclose(high / root, variance[1] ** 0.5, rtol=0.1)
    assert positions(run_dir).pool(np.array([1, 2])).intervals == {}


def test_the_exponent_has_the_interval_of_batches_that_disagree(run_dir, rewrite_positions):
    for ends in positions(run_dir).pool().intervals["power"]:
        assert ends == pytest.approx(0.5, abs=1e-4)  # all batches say the same
    rewrite_positions(power=0.4, batches=range(1, 9))
    rewrite_positions(power=0.6, batches=range(9, 17), append=True)
    pooled = positions(run_dir).pool()
    low, high = pooled.intervals["power"]
    assert 0.4 < low < fit_spread(pooled).power < high < 0.6
    assert high - low > 0.02
    rewrite_positions(sigma=0.0, drift=0.0, batches=range(1, 9))
    assert np.isnan(positions(run_dir).pool().intervals["power"]).all()


@pytest.mark.parametrize(
    ("batches", "said"), [(3, "0.60 (95 % over batches: 0.60 to 0.60);"), (2, "0.60; one half")]
)
def test_the_page_tells_the_interval_where_there_are_batches_enough(
    run_dir, rewrite_positions, batches, said
):
    rewrite_positions(power=0.6, batches=range(1, batches + 1))
    assert f"the spread grows as t to the {said}" in notes(read_run(run_dir))["ratio-spread"][-1]


def test_the_exponent_is_numpys_weighted_line_through_logarithms(run_dir):
    pooled, random = positions(run_dir).pool(), np.random.default_rng(0)
    tokens = random.integers(1, 10_000, len(pooled.position))
    bent = replace(pooled, tokens=tokens, std=pooled.std * random.uniform(0.5, 2, len(tokens)))
    # polyfit squares its weights.
    logs = np.log(bent.position), np.log(bent.std)
    power, _ = np.polyfit(*logs, deg=1, w=np.sqrt(tokens))
    assert fit_spread(bent).power == pytest.approx(power, rel=1e-9)
    for alone in range(len(tokens)):  # one spread has no exponent, whatever the rounding
        std = np.where(np.arange(len(tokens)) == alone, 0.1, 0.0)
        assert np.isnan(fit_spread(replace(bent, std=std)).power)
