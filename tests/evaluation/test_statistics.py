"""Means over problems and their intervals."""

import itertools
import json
import math
import random
import statistics
from collections import Counter

import pytest

from ctpo.evaluation import Estimate, avg_at_k, maj_at_k, pass_at_k
from ctpo.evaluation import majority as majority_module
from ctpo.evaluation.majority import Vote


def test_by_hand():
    # Problem means 1, .5, 0, .5: mean .5, variance (.25 + 0 + .25 + 0) / 3, over four problems.
    estimate = avg_at_k([[1, 1], [1, 0], [0, 0], [0, 1]])
    assert estimate.mean == 0.5
    assert estimate.clustered_error == pytest.approx(math.sqrt(0.5 / 3 / 4))
    assert (estimate.problems, estimate.answers, estimate.unknown) == (4, 8, 0)
    assert 0 < estimate.low < 0.5 < estimate.high < 1


def test_repeating_every_answer_makes_nothing_more_certain():
    rows = [[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    once, often = avg_at_k(rows), avg_at_k([row * 16 for row in rows])
    assert often.clustered_error == pytest.approx(once.clustered_error)
    assert (often.low, often.high) == (once.low, once.high)


def test_an_unknown_answer_is_left_out_and_counted_and_never_taken_for_wrong():
    estimate = avg_at_k([[1, None], [None, 0], [1, 1]])
    assert estimate.mean == pytest.approx(2 / 3)
    assert (estimate.problems, estimate.answers, estimate.unknown) == (3, 6, 2)


def test_a_problem_without_any_score_is_left_out():
    scored = avg_at_k([[1, 0], [1, 1], [0, 0]])
    more = avg_at_k([[1, 0], [1, 1], [None, None], [0, 0]])
    assert (more.mean, more.low, more.high) == (scored.mean, scored.low, scored.high)
    assert more.clustered_error == scored.clustered_error
    assert (more.problems, more.answers, more.unknown) == (3, 8, 2)


def test_every_problem_weighs_the_same_however_many_answers_were_scored():
    assert avg_at_k([[1, None, None, None], [0, 0, 0, 0]]).mean == 0.5


def test_the_seed_decides_the_interval_alone():
    rows = [[random.Random(i).random()] for i in range(20)]
    assert avg_at_k(rows, seed=1) == avg_at_k(rows, seed=1)
    first, second = avg_at_k(rows, seed=1), avg_at_k(rows, seed=2)
    assert (first.low, first.high) != (second.low, second.high)
    assert (first.mean, first.clustered_error) == (second.mean, second.clustered_error)
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
        nominal += abs(estimate.mean - 0.5) <= 1.96 * estimate.clustered_error
    assert 0.90 <= covered / 300 <= 0.98
    assert 0.90 <= nominal / 300 <= 0.98


def test_the_interval_agrees_with_the_standard_error_where_problems_are_many():
    rng = random.Random(0)
    estimate = avg_at_k([[rng.gauss(0, 1)] for _ in range(2000)])
    assert estimate.high - estimate.low == pytest.approx(3.92 * estimate.clustered_error, rel=0.05)


@pytest.mark.parametrize("rows", [[[1.0, 0.0]], [[1.0], [None]]])
def test_one_problem_says_nothing_about_others(rows):
    estimate = avg_at_k(rows)
    assert estimate.mean == sum(rows[0]) / len(rows[0])
    assert all(math.isnan(v) for v in (estimate.low, estimate.high, estimate.clustered_error))


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


def _combinations_right(row, k):
    subsets = list(itertools.combinations(row, k))
    return sum(any(subset) for subset in subsets) / len(subsets)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_is_the_mean_over_all_choices_of_k_answers(k):
    rows = [[1, 0, 0, 0, 0], [0] * 5, [1] * 5, [0, 1, 0, 1, 0]]
    expected = [_combinations_right(row, k) for row in rows]
    assert pass_at_k(rows, k).mean == pytest.approx(sum(expected) / 4)


def test_pass_at_1_is_avg_and_pass_at_n_is_any():
    rows = [[1, 0, 0], [0, 0, 0], [1, 1, 0]]
    assert pass_at_k(rows, 1).mean == pytest.approx(avg_at_k(rows).mean)
    assert pass_at_k(rows, 3).mean == pytest.approx(2 / 3)


def _vote(letter):
    return None if letter == "?" else Vote(None if letter == "-" else letter, letter == "r")


def _majority_by_enumeration(row, k):
    total = 0.0
    subsets = list(itertools.combinations(row, k))
    for subset in subsets:
        tally = Counter(vote.answer for vote in subset if vote.answer is not None)
        most = max(tally.values(), default=0)
        tied = [answer for answer, count in tally.items() if count == most]
        total += ("r" in tied) / len(tied) if tied else 0
    return total / len(subsets)


@pytest.mark.parametrize("k", [1, 2, 3, 4, 6])
@pytest.mark.parametrize(
    "row", ["rrabbc", "r-----", "aabbrr", "abcdef", "rrrrrr", "------", "rrab--"]
)
def test_maj_at_k_is_the_mean_over_all_choices_of_k_answers(row, k):
    votes = [_vote(letter) for letter in row]
    assert maj_at_k([votes], k).mean == pytest.approx(_majority_by_enumeration(votes, k))


def test_a_tie_counts_for_its_share_and_an_ungraded_answer_does_not_vote():
    assert maj_at_k([[_vote(x) for x in "ra"]], 2).mean == 0.5
    assert maj_at_k([[_vote(x) for x in "rabc"]], 4).mean == 0.25
    one = maj_at_k([[_vote(x) for x in "raa"], [_vote(x) for x in "rr?"]], 2)
    assert (one.problems, one.unknown) == (2, 1)
    # In the first, one of three choices has no r, and in two it is tied.
    assert one.mean == pytest.approx((1 / 3 + 1) / 2)


def test_of_many_answers_choices_are_drawn_and_come_out_as_counted(monkeypatch):
    rows = [
        [_vote(x) for x in row] for row in ("r" * 20 + "a" * 25 + "bcdefgh--", "r" * 9 + "a" * 8)
    ]
    for k in (4, 12):
        exact = maj_at_k(rows, k)
        with monkeypatch.context() as patch:
            patch.setattr(majority_module, "MOST_EXACT", 8)
            drawn = maj_at_k(rows, k)
            assert drawn == maj_at_k(rows, k)  # the seed is fixed
        # 10,000 choices of two problems: a standard error of 0.0035.
        assert drawn.mean == pytest.approx(exact.mean, abs=0.015)
        assert drawn.mean != exact.mean
        assert drawn.sampling_error == pytest.approx(exact.sampling_error, rel=0.35)


def test_thousands_of_answers_are_no_overflow():
    scores = [[float(i < right) for i in range(3000)] for right in (0, 1, 1500, 3000)]
    votes = [[_vote("r" if score else "a") for score in row] for row in scores]
    for k in (1, 700, 3000):
        passed, voted = pass_at_k(scores, k), maj_at_k(votes, k)
        assert 0 <= voted.mean <= passed.mean <= 1
        assert math.isfinite(passed.sampling_error) and math.isfinite(voted.sampling_error)
    # With one answer drawn the variance is that of a share, p (1 - p) / (n - 1).
    variance = (1 / 3000 * 2999 / 3000 + 0.25) / 2999 / 16
    assert pass_at_k(scores, 1).sampling_error == pytest.approx(variance**0.5)


@pytest.mark.parametrize("k", [0, 4])
def test_k_must_not_exceed_the_samples(k):
    with pytest.raises(ValueError, match="k from 1 to 3"):
        pass_at_k([[1, 0, 1]], k)
    with pytest.raises(ValueError, match="k from 1 to 3"):
        maj_at_k([[_vote(x) for x in "rab"]], k)
    with pytest.raises(ValueError, match="no problems"):
        pass_at_k([], 1)


def test_a_problem_with_too_few_scored_answers_is_left_out_of_pass_at_k():
    assert pass_at_k([[1, 0, 0], [1, None, None]], 2).problems == 1


def _spread_and_error(figure, draw, runs=400):
    """Standard deviation of a figure over repeated runs, and the mean of the error it reports."""
    estimates = [figure(draw(random.Random(run))) for run in range(runs)]
    spread = statistics.stdev(one.mean for one in estimates)
    return spread, statistics.fmean(one.sampling_error for one in estimates)


CHANCES = [0.1, 0.3, 0.5, 0.5, 0.8, 0.95]


def _scores(rng):
    return [[float(rng.random() < chance) for _ in range(16)] for chance in CHANCES]


def _votes(rng):
    return [
        [_vote("r" if rng.random() < chance else rng.choice("abc")) for _ in range(16)]
        for chance in CHANCES
    ]


@pytest.mark.parametrize(
    ("figure", "draw"),
    [
        (lambda rows: avg_at_k(rows, resamples=10), _scores),
        (lambda rows: pass_at_k(rows, 1, resamples=10), _scores),
        (lambda rows: pass_at_k(rows, 4, resamples=10), _scores),
        (lambda rows: maj_at_k(rows, 5, resamples=10), _votes),
        (lambda rows: maj_at_k(rows, 16, resamples=10), _votes),
    ],
    ids=["avg@16", "pass@1", "pass@4", "maj@5", "maj@16"],
)
def test_the_sampling_error_is_the_spread_of_runs_on_the_same_problems(figure, draw):
    spread, error = _spread_and_error(figure, draw)
    assert 0.8 < error / spread < 1.25


def test_the_clustered_error_is_the_spread_over_problems_and_holds_the_sampling_error():
    def draw(rng):
        chances = [rng.random() for _ in range(20)]
        return [[float(rng.random() < chance) for _ in range(8)] for chance in chances]

    estimates = [avg_at_k(draw(random.Random(run)), resamples=10) for run in range(400)]
    spread = statistics.stdev(one.mean for one in estimates)
    assert 0.85 < statistics.fmean(e.clustered_error for e in estimates) / spread < 1.15
    assert statistics.fmean(e.sampling_error for e in estimates) < 0.6 * spread


def test_one_scored_answer_of_a_problem_takes_the_others_variance():
    full = avg_at_k([[1, 0], [1, 0], [0, 1]])
    part = avg_at_k([[1, 0], [1, None], [0, 1]])
    assert part.sampling_error == pytest.approx(full.sampling_error)
    assert math.isnan(avg_at_k([[1], [0]]).sampling_error)


def test_at_k_1_the_two_ways_to_a_sampling_error_are_one():
    rows = [[1, 0, 0, 1], [0, 0, 0, 1], [1, 1, 1, 1], [0, 1]]
    assert pass_at_k(rows, 1).sampling_error == pytest.approx(avg_at_k(rows).sampling_error)


@pytest.mark.parametrize("k", [3, 5, 70, 80])
def test_the_order_of_the_same_answers_changes_no_figure(k):
    letters = ["a"] * 30 + ["b"] * 25 + ["c"] * 15 + [None] * 10
    votes = [Vote(letter, letter == "a") for letter in letters]
    if k < 6:
        votes = votes[::10]
    shuffled = random.Random(1).sample(votes, len(votes))
    assert maj_at_k([votes, shuffled[::-1]], k) == maj_at_k([shuffled, votes], k)
