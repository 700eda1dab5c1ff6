"""The statistics against brute force, hand-computed numbers and scipy."""

import itertools
import math

import numpy as np
import pytest

from ctpo.studies.statistics import (
    band,
    bootstrap,
    draws,
    holm,
    interquartile_mean,
    mean,
    probability_of_improvement,
    profile,
    sign_flip,
)


def every_resample(count):
    return itertools.product(range(count), repeat=count)


def test_an_interval_is_that_of_all_possible_resamples():
    # Strata of 3 and 2 runs have 27 * 4 resamples; all of them, in place of drawn ones.
    strata = [np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.8])]
    means = [
        np.mean([*strata[0][list(a)], *strata[1][list(b)]])
        for a in every_resample(3)
        for b in every_resample(2)
    ]
    found = bootstrap(strata, mean, resamples=200_000)
    assert found.value == pytest.approx(0.5)
    low, high = np.percentile(np.repeat(means, 1000), (2.5, 97.5))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_every_stratum_keeps_its_number_of_runs_in_every_resample():
    drawn = draws([3, 5], resamples=1000)
    assert drawn.shape == (1000, 8)
    assert set(drawn[:, :3].ravel()) == {0, 1, 2}
    assert set(drawn[:, 3:].ravel()) == {3, 4, 5, 6, 7}


def test_the_interquartile_mean_leaves_a_quarter_out_at_either_end():
    runs = np.array([[9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -80.0]])
    assert interquartile_mean(runs) == pytest.approx([3.5])
    assert interquartile_mean(np.array([[1.0, 2.0, 6.0]])) == pytest.approx([3.0])


def test_the_interquartile_mean_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(0)
    for count in range(1, 24):
        runs = random.normal(size=(4, count))
        assert interquartile_mean(runs) == pytest.approx(stats.trim_mean(runs, 0.25, axis=1))


def test_an_interval_of_equal_runs_is_a_point_and_of_one_run_there_is_none():
    same = bootstrap([np.full(4, 0.25)], interquartile_mean)
    assert (same.low, same.value, same.high) == (0.25, 0.25, 0.25)
    one = bootstrap([np.array([0.3]), np.array([0.1, 0.2])], mean)
    assert one.value == pytest.approx(0.2) and math.isnan(one.low) and math.isnan(one.high)


def test_an_interval_covers_the_true_mean_about_as_often_as_it_says():
    random = np.random.default_rng(1)
    hits = 0
    for trial in range(300):
        found = bootstrap([random.normal(size=30)], mean, seed=trial, resamples=500)
        hits += found.low <= 0 <= found.high
    assert 0.90 <= hits / 300 <= 0.98


def test_a_band_is_the_interval_at_each_point():
    random = np.random.default_rng(2)
    curves = random.normal(size=(6, 3))
    low, value, high = band([curves], mean)
    for point in range(3):
        alone = bootstrap([curves[:, point]], mean)
        assert (low[point], value[point], high[point]) == pytest.approx(
            (alone.low, alone.value, alone.high)
        )


def test_the_probability_of_improvement_counts_every_run_against_every_other():
    first, second = [0.9, 0.5, 0.5], [0.5, 0.4, 0.8]
    wins = [(x > y) + 0.5 * (x == y) for x in first for y in second]
    found = probability_of_improvement([np.array([first, second]).T])
    assert found.value == pytest.approx(np.mean(wins)) and found.low <= found.value <= found.high
    # Of two strata the mean, however many pairs each has.
    two = probability_of_improvement([np.array([first, second]).T, np.array([[1.0, 0.0]] * 2)])
    assert two.value == pytest.approx((np.mean(wins) + 1) / 2)


def test_the_probability_of_improvement_resamples_either_methods_runs():
    pairs = np.array([[0.3, 0.1], [0.9, 0.7], [0.2, 0.8]])
    by_hand = [
        np.mean([(pairs[i, 0] > pairs[j, 1]) for i in first for j in second])
        for first in every_resample(3)
        for second in every_resample(3)
    ]
    found = probability_of_improvement([pairs], resamples=100_000)
    low, high = np.percentile(np.repeat(by_hand, 1000), (2.5, 97.5))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)


def test_a_sign_flip_tries_all_signs():
    # All of one sign: only the given signs and their mirror image are as far out.
    assert sign_flip([1.0, 2.0, 3.0]) == pytest.approx(2 / 8)
    # |sum| of 1, 2, -3 is 0, which every choice of signs reaches.
    assert sign_flip([1.0, 2.0, -3.0]) == 1.0
    # 1 and 3 and -1: |sum| 3; by hand 3 of the 4 choices up to mirroring reach 3 or 5.
    assert sign_flip([1.0, 3.0, -1.0]) == pytest.approx(3 / 4)
    assert sign_flip([0.1] * 5) == pytest.approx(2 / 32)  # although 0.1 * 5 rounds
    assert math.isnan(sign_flip([]))


def test_random_signs_come_near_all_signs():
    random = np.random.default_rng(3)
    values = random.normal(0.3, 1, size=17)
    signs = np.array(list(itertools.product((1, -1), repeat=17)))
    exact = np.mean(np.abs(signs @ values) >= abs(values.sum()) - 1e-9)
    assert sign_flip(values) == pytest.approx(exact, abs=0.01)


def test_a_sign_flip_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(4).normal(0.5, 1, size=8)
    theirs = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip(values) == pytest.approx(theirs.pvalue)


def test_holms_correction_by_hand():
    # Sorted .01 .02 .03 .04: times 4, 3, 2, 1 and never falling.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    with_gap = holm([0.01, math.nan, 0.04])
    assert with_gap[0] == pytest.approx(0.02) and with_gap[2] == pytest.approx(0.04)
    assert math.isnan(with_gap[1])
    assert holm([]) == []


def test_holm_rarely_finds_an_effect_where_there_is_none():
    random = np.random.default_rng(5)
    found = [min(holm(random.uniform(size=10))) < 0.05 for _ in range(2000)]
    assert np.mean(found) == pytest.approx(0.05, abs=0.02)


def test_a_profile_is_the_share_of_runs_above():
    at = np.array([0.0, 0.25, 0.5, 1.0])
    low, share, high = profile([np.array([0.2, 0.4]), np.array([0.6, 0.5])], at)
    assert share == pytest.approx([1.0, 0.75, 0.25, 0.0])
    assert np.all(low <= share) and np.all(share <= high)
