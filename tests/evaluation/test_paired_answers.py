"""Two evaluations beside each other."""

import dataclasses

import pytest

from ctpo.evaluation.paired import (
    compare_answers,
    comparison_markdown,
    differing_settings,
    missing,
)
from tests.evaluation.test_summary import R, W, answers


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
