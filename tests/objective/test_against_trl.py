"""Losses and gradients against TRL's own trainers, run on given log-probs.

Only what a model says is replaced, by log-probs that are leaves: the gradient with respect to them
is compared entry by entry. The loss that comes out is TRL's `_compute_loss`.
"""

from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer
from trl.experimental.gmpo import GMPOConfig, GMPOTrainer

from ctpo.objective import Objective, SAPOSurrogate, VESPOSurrogate, fixed, preset

ROWS, COLUMNS, LONGEST = 6, 11, 16


class _Given:
    """A trainer whose model says `given`."""

    given: torch.Tensor
    model: Any
    _compute_loss: Any

    def _get_per_token_logps_and_entropies(self, *_, **__):
        return self.given, torch.zeros_like(self.given.detach()), None

    def loss_of(self, logprobs, old_logprobs, advantages, mask):
        self.given = logprobs
        ones = torch.ones(ROWS, COLUMNS, dtype=torch.int64)
        inputs = {
            "prompt_ids": ones[:, :1],
            "prompt_mask": ones[:, :1],
            "completion_ids": ones,
            # Half of the holes are padding to TRL, the other half tools' tokens.
            "completion_mask": (mask | (ones.cumsum(dim=1) % 2 == 0)).long(),
            "tool_mask": (mask | (ones.cumsum(dim=1) % 2 == 1)).long(),
            "old_per_token_logps": old_logprobs,
            "advantages": advantages,
            "num_items_in_batch": mask.sum(),
        }
        assert torch.equal(inputs["completion_mask"] * inputs["tool_mask"], mask.long())
        return self._compute_loss(self.model, inputs)


class GivenGRPO(_Given, GRPOTrainer):
    pass


class GivenGMPO(_Given, GMPOTrainer):
    pass


@pytest.fixture
def make_trainer(model, tokenizer, tmp_path):
    """Return a function from settings of TRL to one of its trainers."""

    def make(kind, config, **settings):
        trainer = kind(
            model=model,
            reward_funcs=[lambda completions, **_: [0.0] * len(completions)],
            args=config(
                output_dir=str(tmp_path),
                per_device_train_batch_size=2,
                num_generations=2,
                max_completion_length=LONGEST,
                report_to="none",
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                beta=0.0,
                **settings,
            ),
            train_dataset=Dataset.from_list([{"prompt": "1"}] * 2),
            processing_class=tokenizer,
        )
        assert trainer.args.steps_per_generation == 1
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        return trainer

    return make


GRPO = {"epsilon": 0.2, "epsilon_high": 0.28}
SEQUENCE = {"importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4}

# TRL's settings, spread of log r, ours, our reduction.
CASES: dict[str, tuple[dict, float, Objective, str]] = {
    "grpo": ({"loss_type": "grpo", **GRPO}, 0.3, preset("dapo"), "seq-mean-token-mean"),
    "bnpo": ({"loss_type": "bnpo", **GRPO}, 0.3, preset("dapo"), "token-mean"),
    "dapo": ({"loss_type": "dapo", **GRPO}, 0.3, preset("dapo"), "token-mean"),
    "dr_grpo": (
        {"loss_type": "dr_grpo", "epsilon": 0.2},
        0.3,
        preset("dr-grpo"),
        "seq-mean-token-sum",
    ),
    "two-sided": (
        {"loss_type": "grpo", "delta": 1.5, **GRPO},
        0.5,
        preset("dapo", dual_clip=1.5),
        "seq-mean-token-mean",
    ),
    "gspo": ({"loss_type": "grpo", **SEQUENCE}, 0.002, preset("gspo"), "seq-mean-token-mean"),
    "cispo": (
        {"loss_type": "cispo", "epsilon_high": 5.0},
        1.2,
        preset("cispo"),
        "token-mean",
    ),
    "cispo of a low bound": (
        {"loss_type": "cispo", "epsilon_high": 1.5},
        0.5,
        Objective(ratio="token", surrogate="cispo", window=fixed(1.0, 0.5)),
        "token-mean",
    ),
    "sapo": ({"loss_type": "sapo"}, 0.5, preset("sapo"), "seq-mean-token-mean"),
    "sapo of other temperatures": (
        {"loss_type": "sapo", "sapo_temperature_pos": 2.0, "sapo_temperature_neg": 3.0},
        0.5,
        Objective(ratio="token", surrogate=SAPOSurrogate(tau_pos=2.0, tau_neg=3.0)),
        "seq-mean-token-mean",
    ),
    "vespo": ({"loss_type": "vespo"}, 0.2, preset("vespo"), "token-mean"),
    "vespo of other shapes": (
        {
            "loss_type": "vespo",
            "vespo_k_pos": 1.0,
            "vespo_lambda_pos": 2.0,
            "vespo_k_neg": 0.5,
            "vespo_lambda_neg": 4.0,
        },
        0.2,
        Objective(
            ratio="full-sequence",
            surrogate=VESPOSurrogate(k_pos=1.0, lambda_pos=2.0, k_neg=0.5, lambda_neg=4.0),
        ),
        "token-mean",
    ),
    "gmpo": ({}, 0.4, preset("gmpo"), "seq-mean-token-mean"),
    "gmpo of unequal sides": (
        {"epsilon": 0.2, "epsilon_high": 0.5},
        0.4,
        preset("gmpo", eps_low=0.2, eps_high=0.5),
        "seq-mean-token-mean",
    ),
}


def assert_close(actual, expected):
    """To 1e-5 of the largest entry."""
    largest = expected.abs().max()
    assert largest > 0
    assert (actual - expected).abs().max() <= 1e-5 * largest


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient_are_trls(case, make_trainer, make_batch):
    settings, scale, objective, reduction = CASES[case]
    kinds = (GivenGMPO, GMPOConfig) if case.startswith("gmpo") else (GivenGRPO, GRPOConfig)
    trainer = make_trainer(*kinds, **settings)
    for seed in range(4):
        logprobs, old_logprobs, advantages, mask = make_batch(ROWS, COLUMNS, seed=seed, scale=scale)
        theirs = trainer.loss_of(logprobs, old_logprobs, advantages, mask)
        ours = objective(logprobs, old_logprobs, advantages, mask).mean(reduction)  # type: ignore[arg-type]
        if case == "dr_grpo":  # divides its sum by a constant
            ours = ours / LONGEST
        assert_close(ours, theirs)
        slopes = [torch.autograd.grad(loss, logprobs)[0] for loss in (ours, theirs)]
        assert_close(*slopes)


def test_a_wrong_window_would_show(make_trainer, make_batch):
    trainer = make_trainer(GivenGRPO, GRPOConfig, loss_type="grpo", **GRPO)
    logprobs, old_logprobs, advantages, mask = make_batch(ROWS, COLUMNS, scale=0.3)
    theirs = trainer.loss_of(logprobs, old_logprobs, advantages, mask)
    ours = preset("grpo")(logprobs, old_logprobs, advantages, mask).mean("seq-mean-token-mean")
    with pytest.raises(AssertionError):
        assert_close(ours, theirs)
