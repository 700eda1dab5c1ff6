"""Losses, gradients, clip rates, advantages and mismatch weights against verl 0.9.1's own code."""

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("verl", reason="verl has no release for this Python")

from verl.trainer.ppo.core_algos import (
    compute_grpo_outcome_advantage,
    compute_rloo_outcome_advantage,
    get_policy_loss_fn,
)
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights
from verl.workers.config import ActorConfig

from ctpo.objective import (
    LogWindow,
    Mismatch,
    Objective,
    fixed,
    group_centered,
    group_normalized,
    icepop,
    leave_one_out,
    preset,
)

ROWS, COLUMNS = 9, 14

# Name in verl, spread of log r, verl's settings, the same of ours, the reductions it has.
BOTH = ("token-mean", "seq-mean-token-mean")
CASES: dict[str, tuple[str, float, dict[str, Any], Objective, tuple[str, ...]]] = {
    "vanilla": (
        "vanilla",
        0.7,
        {"clip_ratio_low": 0.2, "clip_ratio_high": 0.28, "clip_ratio_c": 3.0},
        preset("dapo", dual_clip=3.0),
        BOTH,
    ),
    "vanilla of equal sides": (
        "vanilla",
        0.3,
        {"clip_ratio_c": 1.3},
        preset("grpo", dual_clip=1.3),
        BOTH,
    ),
    "gspo": (
        "gspo",
        0.002,
        {"clip_ratio_low": 3e-4, "clip_ratio_high": 4e-4},
        preset("gspo"),
        BOTH,
    ),
    "gspo, token form": (
        "gspo",
        0.002,
        {"clip_ratio_low": 3e-4, "clip_ratio_high": 4e-4},
        preset("gspo-token"),
        BOTH,
    ),
    "sapo": ("sapo", 0.5, {}, preset("sapo"), ("seq-mean-token-mean",)),
    "sapo of other temperatures": (
        "sapo",
        0.5,
        {"tau_pos": 2.0, "tau_neg": 3.0},
        preset("sapo", tau_pos=2.0, tau_neg=3.0),
        ("seq-mean-token-mean",),
    ),
    "geo_mean": (
        "geo_mean",
        0.4,
        {"clip_ratio_low": 0.4, "clip_ratio_high": 0.4},
        preset("gmpo"),
        ("seq-mean-token-mean",),
    ),
    "geo_mean of unequal sides": (
        "geo_mean",
        0.3,
        {"clip_ratio_low": 0.2, "clip_ratio_high": 0.3},
        Objective(
            ratio="sequence-geometric-mean",
            surrogate="gmpo",
            window=LogWindow(eps_low=0.2, eps_high=0.3, power=0),
        ),
        ("seq-mean-token-mean",),
    ),
    "cispo": (
        "cispo",
        0.7,
        {"clip_ratio_low": 0.5, "clip_ratio_high": 0.8},
        Objective(ratio="token", surrogate="cispo", window=fixed(0.5, 0.8)),
        BOTH,
    ),
    "cispo, upper bound only": (
        "cispo",
        1.2,
        {"clip_ratio_low": 1.0, "clip_ratio_high": 4.0},
        preset("cispo"),
        BOTH,
    ),
}


def assert_close(actual, expected, what):
    """To 1e-6 of the largest entry; verl adds 1e-8 to lengths."""
    largest = expected.abs().max()
    assert largest > 0, what
    assert (actual - expected).abs().max() <= 1e-6 * largest, what


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("case", CASES)
def test_loss_gradient_and_clip_rate_are_verls(case, seed, make_batch):
    name, scale, settings, objective, reductions = CASES[case]
    logprobs, old_logprobs, advantages, mask = make_batch(
        ROWS, COLUMNS, seed=seed, scale=scale, dtype=torch.float64
    )
    config = ActorConfig(strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, **settings)
    assert mask.any(dim=1).all() and not mask.all()
    for reduction in reductions:
        # verl has one advantage per token; those of masked ones may be anything.
        theirs, metrics = get_policy_loss_fn(name)(
            old_log_prob=old_logprobs,
            log_prob=logprobs,
            advantages=advantages[:, None] * mask,
            response_mask=mask.double(),
            loss_agg_mode=reduction,
            config=config,
        )
        out = objective(logprobs, old_logprobs, advantages, mask)
        ours = out.mean(reduction)  # type: ignore[arg-type]
        assert_close(ours, theirs, f"loss, {reduction}")
        slopes = [torch.autograd.grad(loss, logprobs)[0] for loss in (ours, theirs)]
        assert_close(slopes[0], slopes[1], f"gradient, {reduction}")
        summary = out.statistics.summary()
        if name in ("vanilla", "gspo"):
            rate = summary["clip/high"] + summary["clip/low"]
            assert rate == pytest.approx(metrics["actor/pg_clipfrac"], abs=1e-6)
            assert summary["clip/dual"] == pytest.approx(
                float(metrics["actor/pg_clipfrac_lower"]), abs=1e-6
            )
        kl = float(metrics["actor/ppo_kl"])
        assert -summary["log_ratio/mean"] == pytest.approx(kl, abs=1e-6 * max(1, abs(kl)))


def test_a_wrong_window_would_show(make_batch):
    logprobs, old_logprobs, advantages, mask = make_batch(
        ROWS, COLUMNS, scale=0.7, dtype=torch.float64
    )
    config = ActorConfig(strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1)
    theirs, _ = get_policy_loss_fn("vanilla")(
        old_logprobs, logprobs, advantages[:, None] * mask, mask.double(), config=config
    )
    ours = preset("dapo")(logprobs, old_logprobs, advantages, mask).mean("token-mean")
    with pytest.raises(AssertionError):
        assert_close(ours, theirs, "loss")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("mismatch", "level", "threshold"),
    [
        (Mismatch(level="token", cap=1.2), "token", 1.2),
        (Mismatch(level="sequence", cap=1.5), "sequence", 1.5),
        (icepop(floor=0.8, cap=1.2), "token", "0.8_1.2"),
        (Mismatch(level="sequence", edge="mask", floor=0.5, cap=1.5), "sequence", "0.5_1.5"),
    ],
)
def test_mismatch_weights_are_verls(mismatch, level, threshold, seed, make_batch):
    logprobs, old_logprobs, advantages, mask = make_batch(
        ROWS, COLUMNS, seed=seed, scale=0.2, dtype=torch.float64
    )
    rollout = old_logprobs - 0.2 * (logprobs.detach() - old_logprobs).roll(1, dims=0).sign()
    weights, _ = compute_rollout_correction_weights(
        old_logprobs - rollout, mask.double(), rollout_is=level, rollout_is_threshold=threshold
    )
    config = ActorConfig(strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1)
    theirs, _ = get_policy_loss_fn("vanilla")(
        old_logprobs,
        logprobs,
        advantages[:, None] * mask,
        mask.double(),
        config=config,
        rollout_is_weights=weights,
    )
    ours = preset("grpo", dual_clip=3.0, mismatch=mismatch)(
        logprobs, old_logprobs, advantages, mask, rollout_logprobs=rollout
    ).mean("token-mean")
    assert_close(ours, theirs, "loss")
    slopes = [torch.autograd.grad(loss, logprobs)[0] for loss in (ours, theirs)]
    assert_close(slopes[0], slopes[1], "gradient")


@pytest.mark.parametrize("seed", range(3))
def test_advantages_are_verls(seed):
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.rand(12, generator=generator, dtype=torch.float64)
    groups = torch.tensor([0, 0, 1, 1, 1, 1, 0, 2, 2, 0, 2, 2])
    index, mask = np.array(groups.tolist()), torch.ones(12, 1, dtype=torch.float64)
    for ours, theirs in (
        (group_normalized, lambda r: compute_grpo_outcome_advantage(r, mask, index)),
        (
            group_centered,
            lambda r: compute_grpo_outcome_advantage(r, mask, index, norm_adv_by_std_in_grpo=False),
        ),
        (leave_one_out, lambda r: compute_rloo_outcome_advantage(r, mask, index)),
    ):
        expected = theirs(rewards[:, None].clone())[0][:, 0]
        torch.testing.assert_close(ours(rewards, groups=groups), expected, rtol=1e-9, atol=1e-12)
