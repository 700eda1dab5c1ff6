import itertools
import math

import pytest

from ctpo.theory.drift import outside, usual


def test_probabilities_are_those_of_a_loop_over_all_strings():
    tokens, t = usual(0.1), 6
    log_ratios = tokens.log_ratios.tolist()
    below = above = below_free = above_free = 0.0
    for kinds in itertools.product(range(3), repeat=t):
        probability = math.prod(tokens.old[k] for k in kinds)
        log_rho = sum(log_ratios[k] for k in kinds)
        free = sum(math.exp(log_ratios[k]) - 1 for k in kinds)
        below += probability * (log_rho < -0.025 * math.sqrt(t))
        above += probability * (log_rho > 0.05 * math.sqrt(t))
        below_free += probability * (free < -0.025 * math.sqrt(t))
        above_free += probability * (free > 0.05 * math.sqrt(t))
    at = outside(tokens, t)
    for found, expected in (
        (at.below, below),
        (at.above, above),
        (at.below_free, below_free),
        (at.above_free, above_free),
    ):
        assert found == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("t", [7, 300, 1000])
def test_log_rho_drifts_by_the_divergence_and_the_martingale_does_not(t):
    tokens = usual()
    at = outside(tokens, t)
    assert at.mean == pytest.approx(-t * tokens.divergence, rel=1e-9)
    assert at.mean_free == pytest.approx(0, abs=1e-9)


def test_the_drift_fills_the_lower_side_and_the_free_statistic_stays():
    tokens = usual()
    short, long = outside(tokens, 100), outside(tokens, 3000)
    assert long.below > short.below + 0.2
    assert long.below_free == pytest.approx(short.below_free, abs=0.02)


def test_tokens_have_the_wanted_spread():
    assert usual(0.05).spread == pytest.approx(0.05, rel=1e-9)
    assert sum(usual(0.05).new) == pytest.approx(1, abs=1e-12)
