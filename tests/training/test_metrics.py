"""The metrics of a batch."""

import pytest

from ctpo.tir import Trajectory
from ctpo.training.trl.metrics import FROM_TRL, metrics_of


def trajectory(reward):
    return Trajectory([1], [2], [True], [-0.1], [], [], "answered", reward=reward)


def test_answers_that_could_not_be_graded_are_counted_and_in_no_mean():
    logs = dict.fromkeys(FROM_TRL, 0.5)
    metrics = metrics_of(logs, [trajectory(r) for r in (1.0, None, 0.0, 1.0, None)])
    assert metrics["reward/unknown"] == pytest.approx(2 / 5)
    assert metrics["reward/mean"] == pytest.approx(2 / 3)
    assert metrics["reward/std"] == pytest.approx((1 / 3) ** 0.5)
    untouched = metrics_of(logs, [trajectory(r) for r in (1.0, 0.0)])
    assert (untouched["reward/mean"], untouched["reward/unknown"]) == (0.5, 0)
