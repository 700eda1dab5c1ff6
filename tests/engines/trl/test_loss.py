"""The loss against TRL's own, on the same micro-batch of the same trainer."""

import copy

import pytest
import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
from trl import GRPOConfig, GRPOTrainer

from ctpo.engines.trl import CTPOConfig, CTPOTrainer
from ctpo.engines.trl.micro_batches import cut, policy_mask
from ctpo.engines.trl.mismatch import mismatch_of


def batch(trainer, *, drift=0.3):
    """A micro-batch as TRL makes it, with old log-probs that are off by `drift`."""
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    inputs = trainer._generate_and_score_completions(next(iter(trainer.get_train_dataloader())))
    random = torch.Generator().manual_seed(0)
    logprobs, _, _ = trainer._forward(trainer.model, inputs)
    noise = drift * torch.randn(logprobs.shape, generator=random)
    inputs["old_per_token_logps"] = (logprobs + noise).detach()
    assert inputs["tool_mask"].float().mean() < 0.95, "the test needs holes in the mask"
    return inputs


def loss_and_gradients(compute, model):
    model.zero_grad()
    loss = compute()
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]


def assert_parity(trainer, inputs):
    """Our `_compute_loss` against that of the class above us, on equal ground."""
    ours = loss_and_gradients(lambda: trainer._compute_loss(trainer.model, inputs), trainer.model)
    theirs = loss_and_gradients(
        lambda: GRPOTrainer._compute_loss(trainer, trainer.model, inputs), trainer.model
    )
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-6)
    assert len(ours[1]) == len(theirs[1]) > 0
    assert max(g.abs().max() for g in theirs[1]) > 1e-4, "the test needs a gradient"
    for mine, other in zip(ours[1], theirs[1], strict=True):
        # Rounding is relative to the largest terms of the sums that make a gradient.
        scale = max(g.abs().max() for g in theirs[1]).item()
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("reduction", ["grpo", "bnpo", "dapo", "dr_grpo"])
def test_token_mode_is_trls_grpo_under_every_reduction(make_trainer, reduction, accumulation):
    trainer = make_trainer(objective="dapo", loss_type=reduction)
    inputs = batch(trainer)
    trainer.current_gradient_accumulation_steps = accumulation
    trainer.epsilon_low, trainer.epsilon_high = 0.2, 0.28
    assert_parity(trainer, inputs)


def test_sequence_mode_is_trls_gspo(make_trainer):
    trainer = make_trainer(objective="gspo", clip_low=0.05, clip_high=0.07)
    inputs = batch(trainer)
    trainer.importance_sampling_level = "sequence"
    trainer.epsilon_low, trainer.epsilon_high = 0.05, 0.07
    assert_parity(trainer, inputs)


def test_a_wrong_window_would_show(make_trainer):
    trainer = make_trainer(objective="grpo", clip_low=0.1, clip_high=0.1)
    inputs = batch(trainer)
    with pytest.raises(AssertionError):
        assert_parity(trainer, inputs)


def test_the_weight_against_the_generator_is_applied_as_trl_does(make_trainer):
    trainer = make_trainer(objective="dapo")
    inputs = batch(trainer)
    random = torch.Generator().manual_seed(1)
    inputs["importance_sampling_ratio"] = torch.rand(
        inputs["completion_ids"].shape, generator=random
    )
    trainer.use_vllm = trainer.vllm_importance_sampling_correction = True
    trainer.epsilon_low, trainer.epsilon_high = 0.2, 0.28
    assert_parity(trainer, inputs)


def trls_weights(difference, mask, mode, low, high):
    """As `GRPOTrainer` writes it, from log π_old - log μ."""
    difference = difference * mask
    if mode.startswith("sequence"):
        difference = difference.sum(1, keepdim=True)
    ratio = difference.exp()
    if mode.endswith("truncate"):
        return ratio.clamp(min=low, max=high)
    return ratio.masked_fill((ratio < (low or 0.0)) | (ratio > high), 0.0)


@pytest.mark.parametrize(
    ("mode", "low"),
    [
        ("token_truncate", None),
        ("token_mask", 0.8),
        ("sequence_truncate", None),
        ("sequence_mask", None),
    ],
)
def test_the_weight_against_the_generator_is_that_of_trls_settings(make_trainer, mode, low):
    trainer = make_trainer(
        vllm_importance_sampling_mode=mode,
        vllm_importance_sampling_clip_min=low,
        vllm_importance_sampling_clip_max=1.2,
    )
    assert trainer.mismatch is None  # no other engine generates
    inputs = batch(trainer)
    trainer.args.use_vllm = True
    trainer.mismatch = mismatch_of(trainer.args)
    random = torch.Generator().manual_seed(2)
    noise = 0.2 * torch.randn(inputs["completion_ids"].shape, generator=random)
    old = trainer._finish(dict(inputs, sampling_per_token_logps=noise))["old_per_token_logps"]
    finished = trainer._finish(dict(inputs, sampling_per_token_logps=old - noise))
    mask = policy_mask(inputs)
    expected = trls_weights(noise, mask, mode, low, 1.2).expand_as(mask)
    given = finished["importance_sampling_ratio"].expand_as(mask)
    torch.testing.assert_close(given[mask], expected[mask])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vllm_importance_sampling_clip_max": None}, "clip_max is None"),
        (
            {
                "vllm_importance_sampling_mode": "token_truncate",
                "vllm_importance_sampling_clip_min": 0.5,
            },
            "clip_min is 0.5; with vllm_importance_sampling_mode=token_truncate it must be None",
        ),
    ],
)
def test_a_weight_that_there_is_none_of_is_refused(make_trainer, changes, message):
    args = make_trainer(**changes).args
    args.use_vllm = True
    with pytest.raises(ValueError, match=message):
        mismatch_of(args)


def test_the_routers_loss_is_added_as_trl_does(make_trainer, tokenizer):
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        moe_intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
        output_router_logits=True,
        router_aux_loss_coef=0.5,
    )
    torch.manual_seed(0)
    trainer = make_trainer(Qwen3MoeForCausalLM(config), objective="dapo")
    assert trainer.aux_loss_enabled
    inputs = batch(trainer)
    trainer.current_gradient_accumulation_steps = 3
    trainer.epsilon_low, trainer.epsilon_high = 0.2, 0.28
    assert_parity(trainer, inputs)
    ours, theirs = trainer._metrics["train"]["aux_loss"]
    assert ours == theirs > 0


def test_with_ctpo_the_gradient_is_the_cumulative_weight(make_trainer):
    """An oracle of loops: -rho_t * A on every token inside the window, 0 outside."""
    trainer = make_trainer(objective="ctpo")
    inputs = batch(trainer, drift=0.03)
    logprobs, _, _ = trainer._forward(trainer.model, inputs)
    mask = inputs["completion_mask"] * inputs["tool_mask"]
    coefficient = torch.zeros_like(logprobs)
    clipped = 0
    for i in range(len(mask)):
        log_rho, t, count = 0.0, 0, int(mask[i].sum())
        advantage = inputs["advantages"][i].item()
        for j in range(mask.size(1)):
            if not mask[i, j]:
                continue
            t += 1
            log_rho += (logprobs[i, j] - inputs["old_per_token_logps"][i, j]).item()
            outside = (
                log_rho > 0.05 * t**0.5
                if advantage > 0
                else log_rho < -0.025 * t**0.5 or log_rho > 0.05 * t**0.5
            )
            clipped += outside
            if not outside:
                weight = torch.tensor(log_rho).exp() * advantage
                coefficient[i, j] = -weight / count / len(mask)
    assert 0 < clipped < mask.sum()
    expected = loss_and_gradients(
        lambda: (trainer._forward(trainer.model, inputs)[0] * coefficient).sum(), trainer.model
    )[1]
    actual = loss_and_gradients(
        lambda: trainer._compute_loss(trainer.model, inputs), trainer.model
    )[1]
    for mine, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("objective", ["ctpo", "grpo", "gspo", "full-sequence"])
def test_cutting_the_padding_changes_no_loss(make_trainer, objective):
    trainer = make_trainer(objective=objective)
    inputs = batch(trainer, drift=0.02)
    wide = dict(inputs)
    for key in ("completion_ids", "completion_mask", "tool_mask", "old_per_token_logps"):
        wide[key] = torch.nn.functional.pad(inputs[key], (0, 9))
    narrow = cut(wide)
    assert narrow["completion_ids"].size(1) == inputs["completion_mask"].sum(1).max()
    losses = [
        loss_and_gradients(lambda b=b: trainer._compute_loss(trainer.model, b), trainer.model)
        for b in (wide, narrow)
    ]
    torch.testing.assert_close(losses[0][0], losses[1][0], rtol=1e-5, atol=1e-7)
    for a, b in zip(losses[0][1], losses[1][1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


@pytest.mark.filterwarnings("ignore:every update is on-policy")
@pytest.mark.parametrize("reduction", ["grpo", "dapo", "dr_grpo"])
def test_the_split_into_micro_batches_changes_no_step(make_trainer, model, reduction):
    weights = []
    for size, accumulation in ((8, 1), (2, 4)):
        trainer = make_trainer(
            copy.deepcopy(model),
            loss_type=reduction,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            steps_per_generation=accumulation,
            max_steps=1,
            logging_steps=1,
        )
        trainer.train()
        weights.append([p.detach().clone() for p in trainer.model.parameters()])
    moved = max((a - b).abs().max() for a, b in zip(weights[0], model.parameters(), strict=True))
    assert moved > 1e-4
    for a, b in zip(*weights, strict=True):
        # Adam's first step is a sign, so rounding shows where the gradient is next to nothing.
        assert (a - b).abs().mean() < 2e-2 * moved


def test_the_first_update_of_a_batch_is_on_policy_to_the_last_bit(make_trainer):
    trainer = make_trainer()
    seen = []
    original = trainer._compute_loss

    def spy(model, inputs):
        logprobs, _, _ = trainer._forward(model, inputs)
        mask = (inputs["completion_mask"] * inputs["tool_mask"]).bool()
        seen.append((logprobs - inputs["old_per_token_logps"])[mask].abs().max().item())
        return original(model, inputs)

    trainer._compute_loss = spy
    trainer.args.max_steps = 8
    trainer.train()
    assert len(seen) == 8
    assert seen[0] == seen[4] == 0.0
    assert min(seen[1:4] + seen[5:8]) > 0


def test_an_unchanged_grpo_configuration_is_refused(make_trainer):
    with pytest.raises(TypeError, match="args is GRPOConfig; CTPOTrainer needs a CTPOConfig"):
        make_trainer(config=GRPOConfig)
    assert issubclass(CTPOConfig, GRPOConfig)
    assert issubclass(CTPOTrainer, GRPOTrainer)


def test_a_logprob_that_is_not_a_number_is_told_by_its_place(make_trainer):
    trainer = make_trainer()
    with torch.no_grad():
        trainer.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"old_logprobs at row 0, position \d+ is nan"):
        trainer.train()


def test_the_evaluation_loss_of_an_unmoved_policy_is_minus_the_mean_advantage(
    make_trainer, prompts
):
    trainer = make_trainer(per_device_eval_batch_size=8, num_generations_eval=4)
    metrics = trainer.evaluate(prompts)
    # All ratios are 1 and advantages are centred in their group.
    assert metrics["eval_loss"] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("offset", [0.01, -0.01])
def test_a_mismatch_before_the_first_update_is_warned_of(make_trainer, caplog, offset):
    trainer = make_trainer()
    finish = trainer._finish

    def off(batch):
        batch = finish(batch)
        batch["old_per_token_logps"] = batch["old_per_token_logps"] + offset
        return batch

    trainer._finish = off
    trainer.train()
    assert "before the first update, where the policy has not moved" in caplog.text


def test_a_weight_per_sequence_is_not_cut_and_one_per_token_is():
    batch = {
        "prompt_ids": torch.arange(8).view(2, 4),
        "prompt_mask": torch.tensor([[0, 0, 1, 1], [0, 0, 0, 1]]),
        "completion_ids": torch.arange(10).view(2, 5),
        "completion_mask": torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]),
        "advantages": torch.tensor([1.0, -1.0]),
        "importance_sampling_ratio": torch.ones(2, 1),
        "sampling_per_token_logps": torch.arange(10.0).view(2, 5),
    }
    narrow = cut(batch)
    assert narrow["prompt_ids"].tolist() == [[2, 3], [6, 7]]
    assert narrow["completion_ids"].tolist() == [[0, 1, 2], [5, 6, 7]]
    assert narrow["sampling_per_token_logps"].tolist() == [[0, 1, 2], [5, 6, 7]]
    assert narrow["importance_sampling_ratio"].shape == (2, 1)
    per_token = cut(batch | {"importance_sampling_ratio": torch.arange(10.0).view(2, 5)})
    assert per_token["importance_sampling_ratio"].tolist() == [[0, 1, 2], [5, 6, 7]]
    with_images = batch | {"pixel_values": torch.zeros(1)}
    assert cut(with_images) is with_images


def test_the_logged_entropy_is_the_mean_over_policy_tokens(make_trainer):
    trainer = make_trainer()
    total: list[float] = []
    collect = trainer._collect

    def watch(positions, entropies, mask):
        for row, allowed in zip(entropies.tolist(), mask.tolist(), strict=True):
            total.extend(e for e, m in zip(row, allowed, strict=True) if m)
        collect(positions, entropies, mask)

    trainer._collect = watch
    logged, log = [], trainer.log

    def keep(logs, *args):
        log(logs, *args)
        logged.append(dict(logs))

    trainer.log = keep
    trainer.train()
    assert logged[0]["entropy"] == pytest.approx(sum(total) / len(total), rel=1e-5)


def test_evaluation_does_not_count_as_training(make_trainer, prompts):
    trainer = make_trainer(per_device_eval_batch_size=8, num_generations_eval=4)
    trainer.evaluate(prompts)
    assert trainer.positions is None
