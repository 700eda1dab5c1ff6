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


# At the end of an epoch, and in the middle of one.
@pytest.mark.parametrize(("accumulation", "batches"), [(1, 4), (2, 3)])
def test_a_resumed_run_ends_at_the_same_bits(make_trainer, model, tmp_path, accumulation, batches):
    from tests.engines.trl.conftest import Digits

    # 6 prompts, 2 a batch: 3 batches an epoch, so 6 batches are two epochs.
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


SCHEDULES = {
    "four steps a batch": {"steps_per_generation": 4, "gradient_accumulation_steps": 1},
    "twice over": {
        "steps_per_generation": 2,
        "gradient_accumulation_steps": 1,
        "num_iterations": 2,
        "per_device_train_batch_size": 4,
    },
    # Optimizer steps end inside a batch, and a batch inside an optimizer step.
    "six micro-batches in fours": {
        "steps_per_generation": 6,
        "gradient_accumulation_steps": 4,
        "per_device_train_batch_size": 4,
    },
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_taken_up_at_any_step_ends_at_the_same_bits(make_trainer, model, tmp_path, schedule):
    """Also at the last step, and from a checkpoint that a callback asked for."""
    from tests.engines.trl.conftest import Digits

    class Ask(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_save = state.global_step in (1, 3, 5, 6)

    settings = SCHEDULES[schedule] | {"max_steps": 6, "save_strategy": "no", "logging_steps": 1}
    whole = make_trainer(
        copy.deepcopy(model), Digits(), output_dir=str(tmp_path / "whole"), **settings
    )
    whole.add_callback(Ask())
    whole.train()
    for step in (1, 3, 5):
        torch.manual_seed(123)
        resumed = make_trainer(
            copy.deepcopy(model), Digits(), output_dir=str(tmp_path / f"from-{step}"), **settings
        )
        resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        for a, b in zip(state(whole), state(resumed), strict=True):
            assert torch.equal(a, b), step


@pytest.fixture
def saved_inside_a_batch(make_trainer, model, tmp_path):
    """A checkpoint after two of the four steps on a batch of rollouts."""
    settings = {"max_steps": 2, "save_strategy": "steps", "save_steps": 2}
    trainer = make_trainer(copy.deepcopy(model), output_dir=str(tmp_path / "run"), **settings)
    trainer.train()
    return tmp_path / "run" / "checkpoint-2"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps_per_generation": 8}, "steps_per_generation is 8, and was 4"),
        ({"num_iterations": 2}, "num_iterations is 2, and was 1"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps is 2, and was 1"),
    ],
)
def test_another_schedule_than_the_checkpoints_is_refused(
    make_trainer, model, saved_inside_a_batch, change, message
):
    trainer = make_trainer(copy.deepcopy(model), max_steps=4, **change)
    with pytest.raises(ValueError, match=message):
        trainer.train(resume_from_checkpoint=str(saved_inside_a_batch))


def test_a_checkpoint_that_lost_its_rollouts_is_refused(make_trainer, model, saved_inside_a_batch):
    (saved_inside_a_batch / "rollouts-0.pt").unlink()
    trainer = make_trainer(copy.deepcopy(model), max_steps=4)
    with pytest.raises(ValueError, match="in the middle of a batch of rollouts and does not hold"):
        trainer.train(resume_from_checkpoint=str(saved_inside_a_batch))


def test_training_again_begins_with_new_rollouts(make_trainer, model):
    from tests.engines.trl.conftest import Digits

    seen = Seen(Digits())
    trainer = make_trainer(copy.deepcopy(model), seen, max_steps=2)
    trainer.train()
    trainer.train()
    assert [step for step, _ in seen.prompts] == [0, 0]


def test_only_what_was_collected_under_the_same_weights_counts_as_on_policy(make_trainer, caplog):
    """Updates of four micro-batches on rollouts of six: half of the second is off-policy."""
    trainer = make_trainer(**SCHEDULES["six micro-batches in fours"], max_steps=3, logging_steps=1)
    trainer.train()
    said = [
        log["ctpo/on_policy/log_rho_max"]
        for log in trainer.state.log_history[:3]
        if "ctpo/on_policy/log_rho_max" in log
    ]
    assert len(said) == 2, "the third update is on the second batch of rollouts, one update old"
    assert max(said) < 1e-5
    assert not [record for record in caplog.records if "do not match" in record.message]


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
