"""Two evaluations of the same problems beside each other."""

import dataclasses
import random
import statistics

import pytest

from ctpo.evaluation import avg_at_k, compare
from ctpo.evaluation.paired import (
    compare_answers,
    comparison_markdown,
    differing_settings,
    missing,
)
from tests.evaluation.test_summary import R, W, answers


def test_by_hand():
    first = {"a": [1, 0], "b": [0, 0], "c": [1, 1], "only": [1]}
    second: dict[str, list[float | None]] = {
        "a": [1, 1],
        "b": [1, 0],
        "c": [0, 1],
        "d": [1],
        "e": [None],
    }
    found = compare(first, second)
    assert (found.first, found.second) == (pytest.approx(0.5), pytest.approx(2 / 3))
    assert found.difference.mean == pytest.approx(1 / 6)
    assert [(p.problem_id, p.difference) for p in found.pairs] == [
        ("c", -0.5), ("a", 0.5), ("b", 0.5),
    ]  # fmt: skip
    assert (found.better, found.worse) == (2, 1)
    assert found.left_out == ("d", "e", "only")
    # Variances of means of two: a .25 and 0, b 0 and .25, c 0 and .25; over three problems.
    assert found.difference.sampling_error == pytest.approx((0.25 * 3) ** 0.5 / 3)


def test_pairing_takes_out_what_makes_a_problem_hard():
    rng = random.Random(0)
    hard = {str(i): rng.random() for i in range(60)}

    def run(gain, seed):
        draw = random.Random(seed)
        return {
            name: [float(draw.random() < min(1, chance + gain)) for _ in range(64)]
            for name, chance in hard.items()
        }

    first, second = run(0, 1), run(0.08, 2)
    found = compare(first, second)
    unpaired = [avg_at_k(list(one.values())).clustered_error for one in (first, second)]
    assert found.difference.clustered_error < 0.5 * sum(e**2 for e in unpaired) ** 0.5
    assert found.difference.low > 0
    assert found == compare(first, second)


def test_the_interval_of_no_difference_covers_zero_about_as_often_as_it_says():
    rng, covered = random.Random(3), 0
    for _ in range(200):
        chances = [rng.random() for _ in range(25)]
        runs = [
            {str(i): [float(rng.random() < c) for _ in range(4)] for i, c in enumerate(chances)}
            for _ in range(2)
        ]
        found = compare(*runs)
        covered += found.difference.low <= 0 <= found.difference.high
    assert 0.88 <= covered / 200 <= 0.99
    assert statistics.fmean([found.first, found.second]) == pytest.approx(0.5, abs=0.3)


def test_runs_without_a_common_scored_problem_are_refused():
    with pytest.raises(ValueError, match="no scored problem in common"):
        compare({"a": [1]}, {"a": [None], "b": [1]})


def test_two_evaluations_are_compared_by_benchmark():
    first, second = answers([[R, W], [W, W]]), answers([[R, R], [W, W]])
    found = compare_answers(first, second)
    assert found["lessons"].difference.mean == pytest.approx(0.25)
    text = comparison_markdown(found["lessons"], "lessons")
    assert "25.0% → 50.0%, difference +25.0 points" in text
    assert "| lesson-0 | 50.0% | 100.0% | +50.0% |" in text
    assert "lesson-1" not in text
    with pytest.raises(ValueError, match="no benchmark in common"):
        compare_answers(first, [])
    with pytest.raises(ValueError, match="lesson-0 is not the same problem in both"):
        compare_answers(first, [dataclasses.replace(second[0], gold="41")])


def test_a_comparison_of_single_samples_has_a_dash_where_it_cannot_tell():
    found = compare_answers(answers([[R], [W]]), answers([[W], [W]]))
    text = comparison_markdown(found["lessons"], "lessons")
    assert "± – over samples / ± 50.0 clustered" in text
    assert "nan" not in text


def test_what_else_changed_is_named():
    first = {"model": "a", "temperature": 1.0, "seed": 0}
    changes = differing_settings(first, first | {"temperature": 0.0, "new": 1})
    assert changes == ["temperature: 1.0 → 0.0", "new: None → 1"]
    assert differing_settings(first, first) == []


def test_what_a_server_did_not_give_is_no_loss_and_is_said():
    first = answers([[R, R], [R, R]])
    second = [
        *first[:2],
        *(
            dataclasses.replace(a, finish_reason="failed", outcome="could-not-tell")
            for a in first[2:]
        ),
    ]
    found = compare_answers(first, second)["lessons"]
    assert (found.difference.mean, found.left_out) == (0, ("lesson-1",))
    assert "of 4 answers 2 failed" in missing(second)
    assert missing(first) == ""
