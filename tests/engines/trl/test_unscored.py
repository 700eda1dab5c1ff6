"""What could not be graded is in no group's statistics."""

import statistics

import pytest


def test_an_answer_without_a_reward_has_no_advantage_and_no_part_in_its_groups_mean(make_trainer):
    rewards = [1.0, 0.0, None, 1.0, None, 0.0, 0.25, None]
    seen: list = []
    trainer = make_trainer(kwargs={"on_rollout": seen.append}, max_steps=1)
    trainer.reward_funcs = [lambda completion_ids, **_: rewards]
    trainer.train()
    advantages = seen[0].advantages
    for start in (0, 4):
        group = rewards[start : start + 4]
        known = [reward for reward in group if reward is not None]
        mean, std = statistics.fmean(known), statistics.stdev(known)
        for reward, advantage in zip(group, advantages[start : start + 4], strict=True):
            expected = 0 if reward is None else (reward - mean) / (std + 1e-4)
            assert advantage == pytest.approx(expected, abs=1e-5)
