import copy

import pytest
import torch


def infinite(completion_ids, **_):
    return [float("inf") if i == 5 else float(i) for i in range(len(completion_ids))]


def minus_infinite(completion_ids, **_):
    return [float("-inf") if i == 2 else float(i) for i in range(len(completion_ids))]


@pytest.mark.parametrize("scale_rewards", ["none", "group", "batch"])
@pytest.mark.parametrize(("function", "row"), [(infinite, 5), (minus_infinite, 2)])
def test_an_infinite_reward_stops_training_before_the_update(
    make_trainer, scale_rewards, function, row
):
    trainer = make_trainer(scale_rewards=scale_rewards)
    trainer.reward_funcs = [function]
    trainer.reward_func_names = [function.__name__]
    before = copy.deepcopy(trainer.model.state_dict())
    with pytest.raises(ValueError, match=f"'{function.__name__}' returned -?inf for row {row} "):
        trainer.train()
    after = trainer.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
