"""Statistics of a step: merged over ranks they are those of the whole, and its start is judged."""

import logging
import math

import pytest
import torch

from ctpo.objective import PositionStatistics, preset
from ctpo.objective.statistics.steps import on_policy_metrics, over_ranks


def statistics(make_batch, *, scale):
    return preset("ctpo")(*make_batch(6, 20, scale=scale)).statistics


def test_without_a_group_the_statistics_come_back_as_they_are(make_batch):
    one = statistics(make_batch, scale=0.1)
    (merged,) = over_ranks([one], None)
    assert merged.summary() == one.summary()
    assert over_ranks([], None) == []


@pytest.mark.parametrize(("scale", "warned"), [(0.0, False), (1e-6, False), (0.05, True)])
def test_a_first_update_that_moved_already_is_warned_of(make_batch, caplog, scale, warned):
    logprobs, old, _, mask = make_batch(6, 20, scale=scale)
    first = statistics(make_batch, scale=scale)
    with caplog.at_level(logging.WARNING):
        (largest,) = on_policy_metrics(first).values()
    moved = torch.where(mask, logprobs - old, 0.0).cumsum(1)[mask].abs().max().item()
    assert largest == pytest.approx(moved, rel=1e-4, abs=1e-6)
    assert ("before the first update" in caplog.text) is warned


def test_without_tokens_there_is_nothing_to_judge(caplog):
    (value,) = on_policy_metrics(PositionStatistics.zeros()).values()
    assert math.isnan(value)
    assert not caplog.text
