"""What TRL documents for an option beside the surrogate holds with our surrogate."""

import copy
import math
from pathlib import Path

import pytest
import torch
import trl
from peft import LoraConfig, get_peft_model
from trl import GRPOConfig, GRPOTrainer

from ctpo.engines.trl import CTPOConfig, CTPOTrainer
from ctpo.engines.trl.micro_batches import policy_mask
from ctpo.objective import Objective, preset

from .test_loss import batch, loss_and_gradients


@pytest.fixture
def saved(model, tokenizer, tmp_path):
    """The model as loaded from a directory, from which TRL loads the reference again."""
    model.save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    return type(model).from_pretrained(tmp_path / "policy")


def logged_by(trainer):
    """Train and return what was logged of the first batch."""
    found = []
    log = trainer.log

    def keep(logs, *args):
        log(logs, *args)
        found.append(dict(logs))

    trainer.log = keep
    trainer.train()
    return found[0]


def moved(trainer, before):
    after = dict(trainer.model.named_parameters())
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def parameters(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


# Option and the metrics that TRL has for it.
TERMS = {
    "kl": ({"beta": 0.5}, {"kl"}),
    "kl uncorrected": ({"beta": 0.5, "use_bias_correction_kl": False}, {"kl"}),
    "entropy": ({"entropy_coef": 0.3}, {"entropy_coef", "policy_loss"}),
    "adaptive": (
        {"use_adaptive_entropy": True, "entropy_coef": 0.1, "entropy_target": 50.0},
        {"entropy_coef", "policy_loss"},
    ),
    "entropic tokens": ({"top_entropy_quantile": 0.4}, set()),
    "entropic bonus": ({"top_entropy_quantile": 0.4, "entropy_coef": 0.3, "beta": 0.1}, {"kl"}),
    "off-policy mask": ({"off_policy_mask_threshold": 1e-6}, set()),
}


@pytest.mark.parametrize("reduction", ["grpo", "dapo"])
@pytest.mark.parametrize("term", TERMS)
def test_with_trls_surrogate_a_term_is_trls(make_trainer, saved, term, reduction):
    """Loss and gradient of `GRPOTrainer` itself, for the presets that are its surrogates."""
    options, _ = TERMS[term]
    shared = {**options, "loss_type": reduction}
    ours = make_trainer(saved, objective="grpo", **shared)
    theirs = make_trainer(saved, trainer=GRPOTrainer, config=GRPOConfig, **shared)
    inputs = batch(ours)
    theirs.model.train()
    if "beta" in options:
        noise = 0.2 * torch.randn_like(inputs["ref_per_token_logps"])
        inputs["ref_per_token_logps"] = inputs["ref_per_token_logps"] + noise
    for trainer in (ours, theirs):
        trainer.current_gradient_accumulation_steps = 2
        trainer._last_world_entropy = 1.0  # as if a step were done, so that the bonus is on
    del inputs["sampling_per_token_logps"]
    mine, expected = (
        loss_and_gradients(lambda t=t: t._compute_loss(t.model, dict(inputs)), t.model)
        for t in (ours, theirs)
    )
    torch.testing.assert_close(mine[0], expected[0], rtol=1e-5, atol=1e-6)
    scale = max(g.abs().max() for g in expected[1]).item()
    assert scale > 1e-4
    for a, b in zip(mine[1], expected[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5 * scale)
    for name, values in theirs._metrics["train"].items():
        if not name.startswith("clip_ratio/"):
            assert ours._metrics["train"][name][-1] == pytest.approx(values[-1], rel=1e-4), name


_PLAIN: dict[str, torch.Tensor] = {}  # weights after training without a term, the same each time


@pytest.mark.parametrize("term", TERMS)
def test_a_term_beside_the_ctpo_loss_trains_and_is_logged(make_trainer, saved, term):
    options, metrics = TERMS[term]
    if not _PLAIN:
        plain = make_trainer(copy.deepcopy(saved), logging_steps=4, max_steps=4)
        plain.train()
        _PLAIN.update(parameters(plain))
    with_term = make_trainer(copy.deepcopy(saved), logging_steps=4, max_steps=4, **options)
    before = parameters(with_term)
    logs = logged_by(with_term)
    assert moved(with_term, before) == set(before)
    assert moved(with_term, _PLAIN), "the option changes nothing"
    assert metrics <= logs.keys()
    assert all(value is not None and math.isfinite(value) for value in logs.values())
    assert not any(name.startswith("clip_ratio/") for name in logs)


def test_under_the_cumulative_ratio_the_kl_term_is_weighted_by_it(make_trainer, saved):
    """By hand: with advantages of 0 the loss is beta · mean(ρ_t k3_t), in value and gradient."""
    trainer = make_trainer(saved, objective="ctpo", beta=0.5, loss_type="bnpo")
    inputs = batch(trainer, drift=0.1)
    inputs["advantages"] = torch.zeros_like(inputs["advantages"])
    inputs["ref_per_token_logps"] = inputs["ref_per_token_logps"] + 0.3
    mask = policy_mask(inputs)

    def by_hand():
        logprobs = trainer._forward(trainer.model, inputs)[0]
        total = 0.0
        for i in range(len(mask)):
            prefix = 1.0  # of earlier tokens, which the gradient leaves alone
            for j in range(mask.size(1)):
                if mask[i, j]:
                    ratio = (logprobs[i, j] - inputs["old_per_token_logps"][i, j]).exp()
                    gap = inputs["ref_per_token_logps"][i, j] - logprobs[i, j]
                    total = total + prefix * ratio * (gap.exp() - gap - 1)
                    prefix = prefix * ratio.item()
        return 0.5 * total / mask.sum()

    expected = loss_and_gradients(by_hand, trainer.model)
    mine = loss_and_gradients(lambda: trainer._compute_loss(trainer.model, inputs), trainer.model)
    torch.testing.assert_close(mine[0], expected[0], rtol=1e-4, atol=1e-6)
    for a, b in zip(mine[1], expected[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_tokens_outside_the_mask_add_nothing_to_the_kl_term(make_trainer, saved):
    trainer = make_trainer(saved, beta=0.5)
    inputs = batch(trainer)
    outside = ~policy_mask(inputs)
    expected = trainer._compute_loss(trainer.model, inputs)
    inputs["ref_per_token_logps"] = inputs["ref_per_token_logps"].masked_fill(outside, 200.0)
    assert trainer._compute_loss(trainer.model, inputs) == expected


def test_the_reference_is_the_policy_that_training_began_with(make_trainer, saved):
    trainer = make_trainer(saved, beta=0.1, max_steps=8)
    start = [p.detach().clone() for p in saved.parameters()]
    seen = []
    finish = trainer._finish

    def watch(inputs):
        inputs = finish(inputs)
        with torch.no_grad():
            expected = trainer._forward(trainer.ref_model, inputs)[0]
        mask = policy_mask(inputs)
        seen.append((inputs["ref_per_token_logps"] - expected)[mask].abs().max().item())
        return inputs

    trainer._finish = watch
    trainer.train()
    assert len(seen) == 8
    assert max(seen) < 1e-5
    assert all(
        torch.equal(a, b) for a, b in zip(start, trainer.ref_model.parameters(), strict=True)
    )


def test_a_synchronised_reference_follows_the_policy_and_is_resumed(make_trainer, saved, tmp_path):
    options = {
        "beta": 0.5,
        "sync_ref_model": True,
        "ref_model_sync_steps": 2,
        "ref_model_mixup_alpha": 1.0,
        "save_steps": 6,
        "max_steps": 9,
        "lr_scheduler_type": "constant",
    }
    whole = make_trainer(copy.deepcopy(saved), save_strategy="steps", **options)
    whole.train()  # the last synchronisation is after step 8
    again = make_trainer(copy.deepcopy(saved), **options)
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-6"))
    for trained in ("model", "ref_model"):
        pairs = (getattr(whole, trained), getattr(again, trained))
        for a, b in zip(*(model.parameters() for model in pairs), strict=True):
            assert torch.equal(a, b)
    assert any(moved(whole, dict(whole.ref_model.named_parameters())))
    assert whole.ref_model.lm_head.weight.ne(saved.lm_head.weight).any()
    (tmp_path / "out" / "checkpoint-6" / "reference.pt").unlink()
    with pytest.raises(ValueError, match="sync_ref_model is True and .* holds no reference"):
        again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-6"))


@pytest.mark.parametrize("adapters", ["new", "pretrained"])
def test_without_adapters_or_with_their_first_state_an_adapted_model_is_its_reference(
    make_trainer, saved, adapters
):
    lora = LoraConfig(
        r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False
    )
    if adapters == "new":
        policy, kwargs = saved, {"peft_config": lora}
        reference = copy.deepcopy(saved)
    else:
        policy, kwargs = get_peft_model(saved, lora), {}
        reference = copy.deepcopy(policy)
    trainer = make_trainer(policy, kwargs=kwargs, beta=0.1)
    assert trainer.ref_model is None
    inputs = batch(trainer)
    row = policy_mask(inputs)
    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1)
    attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1)
    with torch.no_grad():
        logits = reference(
            input_ids=ids,
            attention_mask=attention,
            position_ids=(attention.cumsum(-1) - 1).clamp(min=0),
        ).logits
    logprobs = logits.log_softmax(-1)[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
    expected = logprobs[:, -row.size(1) :]
    torch.testing.assert_close(
        inputs["ref_per_token_logps"][row], expected[row], rtol=1e-4, atol=1e-4
    )
    logs = logged_by(trainer)
    assert logs["kl"] >= 0
    if adapters == "new":
        assert logs["kl"] > 1e-3  # the adapters were not zero


def test_the_coefficient_of_adaptive_entropy_moves_and_is_resumed(make_trainer, saved, tmp_path):
    options = {"use_adaptive_entropy": True, "entropy_coef": 0.1, "entropy_target": 50.0}
    trainer = make_trainer(
        copy.deepcopy(saved), save_strategy="steps", save_steps=4, max_steps=4, **options
    )
    trainer.train()
    assert trainer.entropy_coef == pytest.approx(0.1 + 4 * 0.005)
    again = make_trainer(copy.deepcopy(saved), max_steps=5, **options)
    again.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4"))
    assert again.entropy_coef == pytest.approx(0.1 + 5 * 0.005)


def test_a_batch_that_is_truncated_as_a_whole_moves_and_logs_nothing(make_trainer, saved):
    trainer = make_trainer(saved, mask_truncated_completions=True)
    before = parameters(trainer)
    logs = logged_by(trainer)
    assert not moved(trainer, before)
    assert all(value is None or math.isfinite(value) for value in logs.values())
    assert logs["loss"] == logs["grad_norm"] == 0.0
    assert logs["ctpo/clip/high"] is logs["ctpo/on_policy/log_rho_max"] is logs["entropy"] is None


@pytest.mark.parametrize(
    "options",
    [
        {"num_iterations": 2, "steps_per_generation": 4, "max_steps": 8},
        {"num_iterations": 3, "steps_per_generation": 4, "gradient_accumulation_steps": 2},
        {"generation_kwargs": {"do_sample": True, "top_k": 0, "num_beams": 1, "typical_p": 1.0}},
        {"generation_kwargs": {"temperature": 0.8}, "temperature": 0.8},
    ],
)
def test_an_option_that_leaves_the_ratio_alone_is_taken(make_trainer, options):
    trainer = make_trainer(logging_steps=2, **options)
    before = parameters(trainer)
    logs = logged_by(trainer)
    assert moved(trainer, before) == set(before)
    assert logs["ctpo/on_policy/log_rho_max"] == 0.0


def test_the_weight_of_an_objective_handed_over_is_asked_for_the_kl_term(make_trainer):
    gspo = preset("gspo")
    with pytest.raises(ValueError, match=r"use_bias_correction_kl is True.*SequenceGeometricMean"):
        make_trainer(kwargs={"objective": gspo}, beta=0.1)
    assert isinstance(gspo, Objective)


def test_without_arguments_the_configuration_is_the_default_one(saved, prompts, tokenizer):
    with pytest.warns(UserWarning, match="every update is on-policy"):
        trainer = CTPOTrainer(
            saved,
            lambda completions, **_: [0.0] * len(completions),
            train_dataset=prompts,
            processing_class=tokenizer,
        )
        assert trainer.objective == CTPOConfig("unused").build_objective()
    assert trainer.args.output_dir == "policy-CTPO"


def test_the_model_card_cites_the_paper(make_trainer, tmp_path):
    make_trainer().create_model_card()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "2605.07331" in card
    assert "Yuheng Zhang and Chenlu Ye" in card
    assert "DeepSeekMath" not in card


class Counter:
    """An environment that counts, and rewards how far it got."""

    def reset(self, **_):
        self.total = 0
        return " Start at zero."

    def add(self, number: int) -> int:
        """Add a number to the total.

        Args:
            number: What to add.

        Returns:
            The total.
        """
        self.total += number
        return self.total

    def get_reward(self):
        return float(self.total)


def test_an_environments_tool_is_called_and_its_output_is_no_policy_token(
    make_trainer, model, tokenizer
):
    # TRL knows templates by their text: its own copy of Qwen3's, and a tokenizer that goes with it.
    template = Path(trl.__file__).with_name("chat_templates") / "qwen3.jinja"
    fitting = copy.deepcopy(tokenizer)
    fitting.chat_template = template.read_text()
    model.resize_token_embeddings(len(fitting))
    trainer = make_trainer(
        model,
        max_completion_length=200,
        max_steps=2,
        logging_steps=2,
        kwargs={
            "reward_funcs": None,
            "processing_class": fitting,
            "rollout_func": None,
            "environment_factory": Counter,
        },
    )
    number = iter(range(1000))
    call = '<tool_call>\n{"name": "add", "arguments": {"number": %d}}\n</tool_call><|im_end|>'

    def scripted(prompt_ids, *_, **__):
        texts = [
            "done<|im_end|>" if "</tool_response>" in fitting.decode(ids) else call % next(number)
            for ids in prompt_ids
        ]
        return [fitting.encode(text, add_special_tokens=False) for text in texts], None

    trainer._generate_single_turn = scripted
    masks = []
    finish = trainer._finish

    def watch(inputs):
        for ids, mask in zip(inputs["completion_ids"], policy_mask(inputs), strict=True):
            masks.append((fitting.decode(ids[~mask]), fitting.decode(ids[mask])))
        return finish(inputs)

    trainer._finish = watch
    before = parameters(trainer)
    logs = logged_by(trainer)
    assert logs["tools/call_frequency"] == 1.0
    assert logs["rewards/Counter/mean"] == pytest.approx(3.5)  # 0 to 7
    assert moved(trainer, before)
    assert logs["ctpo/on_policy/log_rho_max"] == 0.0
    for outside, inside in masks:
        assert "<tool_response>" in outside and "<tool_response>" not in inside
        assert "<tool_call>" in inside and "done" in inside
