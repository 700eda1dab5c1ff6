"""Means over problems and their intervals."""

import json
import math
import random

import pytest

from ctpo.evaluation import Estimate, avg_at_k


def test_by_hand():
    # Problem means 1, .5, 0, .5: mean .5, variance (.25 + 0 + .25 + 0) / 3, over four problems.
    estimate = avg_at_k([[1, 1], [1, 0], [0, 0], [0, 1]])
    assert estimate.mean == 0.5
    assert estimate.standard_error == pytest.approx(math.sqrt(0.5 / 3 / 4))
    assert (estimate.problems, estimate.answers, estimate.unknown) == (4, 8, 0)
    assert 0 < estimate.low < 0.5 < estimate.high < 1


def test_repeating_every_answer_makes_nothing_more_certain():
    rows = [[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    once, often = avg_at_k(rows), avg_at_k([row * 16 for row in rows])
    assert often.standard_error == pytest.approx(once.standard_error)
    assert (often.low, often.high) == (once.low, once.high)


def test_an_unknown_answer_is_left_out_and_counted_and_never_taken_for_wrong():
    estimate = avg_at_k([[1, None], [None, 0], [1, 1]])
    assert estimate.mean == pytest.approx(2 / 3)
    assert (estimate.problems, estimate.answers, estimate.unknown) == (3, 6, 2)


def test_a_problem_without_any_score_is_left_out():
    scored = avg_at_k([[1, 0], [1, 1], [0, 0]])
    more = avg_at_k([[1, 0], [1, 1], [None, None], [0, 0]])
    assert (more.mean, more.low, more.high) == (scored.mean, scored.low, scored.high)
    assert more.standard_error == scored.standard_error
    assert (more.problems, more.answers, more.unknown) == (3, 8, 2)


def test_every_problem_weighs_the_same_however_many_answers_were_scored():
    assert avg_at_k([[1, None, None, None], [0, 0, 0, 0]]).mean == 0.5


def test_the_seed_decides_the_interval_alone():
    rows = [[random.Random(i).random()] for i in range(20)]
    assert avg_at_k(rows, seed=1) == avg_at_k(rows, seed=1)
    first, second = avg_at_k(rows, seed=1), avg_at_k(rows, seed=2)
    assert (first.low, first.high) != (second.low, second.high)
    assert (first.mean, first.standard_error) == (second.mean, second.standard_error)
    # Two seeds differ by resampling noise only, far below the width.
    assert first.low == pytest.approx(second.low, abs=0.02)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    # 40 problems of different difficulty, 4 answers each; the truth is the mean difficulty, 1/2.
    rng = random.Random(5)
    covered = nominal = 0
    for trial in range(300):
        rows = []
        for _ in range(40):
            difficulty = rng.random()
            rows.append([float(rng.random() < difficulty) for _ in range(4)])
        estimate = avg_at_k(rows, seed=trial, resamples=500)
        covered += estimate.low <= 0.5 <= estimate.high
        nominal += abs(estimate.mean - 0.5) <= 1.96 * estimate.standard_error
    assert 0.90 <= covered / 300 <= 0.98
    assert 0.90 <= nominal / 300 <= 0.98


def test_the_interval_agrees_with_the_standard_error_where_problems_are_many():
    rng = random.Random(0)
    estimate = avg_at_k([[rng.gauss(0, 1)] for _ in range(2000)])
    assert estimate.high - estimate.low == pytest.approx(3.92 * estimate.standard_error, rel=0.05)


@pytest.mark.parametrize("rows", [[[1.0, 0.0]], [[1.0], [None]]])
def test_one_problem_says_nothing_about_others(rows):
    estimate = avg_at_k(rows)
    assert estimate.mean == sum(rows[0]) / len(rows[0])
    assert all(math.isnan(v) for v in (estimate.low, estimate.high, estimate.standard_error))


def test_nothing_scored_is_not_a_number_and_not_zero():
    estimate = avg_at_k([[None], [None]])
    assert math.isnan(estimate.mean)
    assert (estimate.problems, estimate.answers, estimate.unknown) == (0, 2, 2)


def test_an_estimate_survives_strict_json():
    for rows in ([[1, 0], [0, 0]], [[1, 0]], [[None]]):
        estimate = avg_at_k(rows)
        text = json.dumps(estimate.to_dict(), allow_nan=False)
        again = Estimate.from_dict(json.loads(text))
        assert repr(again) == repr(estimate)


def test_no_problems_and_infinite_scores_are_refused():
    with pytest.raises(ValueError, match="no problems"):
        avg_at_k([])
    for score in (math.nan, math.inf):
        with pytest.raises(ValueError, match="not finite"):
            avg_at_k([[1.0], [score]])
