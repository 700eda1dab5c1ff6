"""Six batches, and three and three, are the same six batches: across epochs, to the last bit."""

import copy
import shutil

import pytest
import torch
from transformers import TrainerCallback

from ctpo.engines.trl.sampler import EpochSampler


class Seen(TrainerCallback):
    """Remembers which prompts were answered at which step."""

    def __init__(self, rollout):
        self.rollout = rollout
        self.prompts = []

    def __call__(self, prompts, trainer):
        self.prompts.append((trainer.state.global_step, [p[-1]["content"] for p in prompts]))
        return self.rollout(prompts, trainer)


def state(trainer):
    optimizer = trainer.optimizer.state_dict()["state"]
    tensors = [p.detach().clone() for p in trainer.model.parameters()]
    return tensors + [v.clone() for s in optimizer.values() for v in s.values()]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_resumed_run_ends_at_the_same_bits(make_trainer, model, tmp_path, accumulation):
    from tests.engines.trl.conftest import Digits

    # 6 prompts, 2 a batch: 3 batches an epoch, so 6 batches are two epochs, and a run taken up
    # after 4 starts in the middle of the second.
    steps = 4 // accumulation
    settings = {
        "max_steps": 6 * steps,
        "logging_steps": steps,
        "gradient_accumulation_steps": accumulation,
        "save_strategy": "steps",
        "save_steps": steps,
        "lr_scheduler_type": "linear",
        "warmup_steps": 2,
    }
    whole_prompts = Seen(Digits())
    whole = make_trainer(
        copy.deepcopy(model), whole_prompts, output_dir=str(tmp_path / "whole"), **settings
    )
    whole.train()
    assert whole.state.global_step == 6 * steps
    assert state(whole)[0].ne(next(model.parameters())).any()

    for batches in (3, 4):
        # A fresh process would have other random numbers behind it.
        torch.manual_seed(123)
        kept = tmp_path / f"kept-{batches}"
        shutil.copytree(tmp_path / "whole" / f"checkpoint-{batches * steps}", kept / "checkpoint")
        prompts = Seen(Digits())
        resumed = make_trainer(copy.deepcopy(model), prompts, output_dir=str(kept), **settings)
        resumed.train(resume_from_checkpoint=str(kept / "checkpoint"))
        assert prompts.prompts == whole_prompts.prompts[batches:]
        for a, b in zip(state(whole), state(resumed), strict=True):
            assert torch.equal(a, b)


def test_the_second_epoch_has_an_order_of_its_own(make_trainer, model):
    from tests.engines.trl.conftest import Digits

    seen = Seen(Digits())
    make_trainer(copy.deepcopy(model), seen, max_steps=24).train()
    order = [[prompts[0], prompts[4]] for _, prompts in seen.prompts]
    first, second = order[:3], order[3:]
    assert first != second
    assert sorted(sum(first, [])) == sorted(sum(second, []))


def test_checkpoints_inside_a_batch_are_refused(make_trainer):
    with pytest.raises(ValueError, match="save_steps is 6; it must be a multiple of 4"):
        make_trainer(save_strategy="steps", save_steps=6)


def sampled(**changes):
    settings = {"size": 7, "prompts": 3, "responses": 2, "repeats": 2, "shuffle": True, "seed": 5}
    return EpochSampler(**settings | changes)


def test_the_pattern_is_groups_in_batches_repeated():
    assert list(sampled(shuffle=False)) == [0, 0, 1, 1, 2, 2] * 2 + [3, 3, 4, 4, 5, 5] * 2
    assert len(sampled()) == len(list(sampled())) == 24


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    sampler = sampled()
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert first != second
    fresh = sampled()
    fresh.set_epoch(1)
    assert list(fresh) == second
    fresh.set_epoch(0)
    assert list(fresh) == first
    assert list(sampled(seed=6)) != first


def test_a_data_set_smaller_than_a_batch_is_refused():
    with pytest.raises(
        ValueError, match="the data set has 2 prompts; one batch of rollouts takes 3"
    ):
        sampled(size=2)


def test_the_trainers_settings_decide_the_order(make_trainer):
    sampler = make_trainer(num_iterations=3, seed=9)._get_train_sampler()
    assert (sampler.size, sampler.prompts, sampler.responses) == (6, 2, 4)
    assert (sampler.repeats, sampler.seed, sampler.shuffle) == (12, 9, True)
    assert not make_trainer(shuffle_dataset=False)._get_train_sampler().shuffle
