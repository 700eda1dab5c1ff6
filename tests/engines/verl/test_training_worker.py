"""verl's own training worker (FSDP2, `ppo_loss`) with our losses, against plain autograd."""

from typing import Any

import pytest
import torch

pytest.importorskip("verl", reason="verl has no release for this Python")

from transformers import AutoModelForCausalLM
from verl.workers.config import PolicyLossConfig

from ctpo.engines.verl.loss_config import CTPOPolicyLossConfig
from ctpo.engines.verl.names import loss_name
from ctpo.objective import PRESETS, REDUCTIONS, preset
from tests.engines.verl.batches import by_autograd, random_rows, train
from tests.engines.verl.cpu.worker import training_worker

# verl divides by the number of sequences and tokens in the mini-batch of all ranks.
BOTH = ("seq-mean-token-mean", "token-mean")

SPLITS = {
    "one micro-batch": {"micro_batch_size": 6},
    "two micro-batches": {"micro_batch_size": 3},
    "micro-batches of unequal size": {"micro_batch_tokens": 20},
}


@pytest.fixture(scope="module", params=["packed", "padded"])
def worker(request, tiny_model):
    with training_worker(tiny_model, {"optim.lr": 0.0}, packed=request.param == "packed") as one:
        yield one


@pytest.fixture(scope="module")
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


@pytest.fixture(scope="module")
def rows(model):
    return random_rows(model)


def assert_same(found, loss, norm):
    assert norm > 0.01
    assert found["loss"] == pytest.approx(loss, rel=1e-5, abs=1e-5 * norm)
    assert found["grad_norm"] == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_ctpo_is_that_of_plain_autograd(worker, model, rows, reduction, split):
    config = CTPOPolicyLossConfig(loss_mode="ctpo")
    found = train(worker, rows, config, reduction, mini_batch_size=6, **SPLITS[split])
    loss, norm, _ = by_autograd(model, rows, preset("ctpo"), reduction)
    assert_same(found, loss, norm)


@pytest.mark.parametrize("name", PRESETS)
def test_every_loss_is_that_of_plain_autograd(worker, model, rows, name):
    config = CTPOPolicyLossConfig(loss_mode=loss_name(name))
    for reduction in BOTH:
        found = train(worker, rows, config, reduction, mini_batch_size=6, micro_batch_tokens=20)
        loss, norm, _ = by_autograd(model, rows, preset(name), reduction)
        assert_same(found, loss, norm)


def test_a_hole_that_is_filled_would_show(worker, model, rows):
    config = CTPOPolicyLossConfig(loss_mode="ctpo")
    filled = [(*row[:2], torch.ones_like(row[2]), row[3].clamp(min=-9), row[4]) for row in rows]
    found = train(worker, rows, config, mini_batch_size=6, micro_batch_size=6)
    loss, norm, _ = by_autograd(model, filled, preset("ctpo"))
    with pytest.raises(AssertionError):
        assert_same(found, loss, norm)


# Name in verl, verl's settings; name of ours, the same of ours.
SHARED: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "vanilla": (
        {"clip_ratio_low": 0.02, "clip_ratio_high": 0.03, "clip_ratio_c": 1.05},
        "dapo",
        {"clip_low": 0.02, "clip_high": 0.03, "dual_clip": 1.05},
    ),
    "gspo": (
        {"clip_ratio_low": 3e-4, "clip_ratio_high": 4e-4},
        "ctpo-gspo",
        {},
    ),
    "cispo": (
        {"clip_ratio_low": 0.02, "clip_ratio_high": 0.03},
        "ctpo-cispo",
        {"clip_low": 0.02, "clip_high": 0.03},
    ),
    "sapo": (
        {"tau_pos": 2.0, "tau_neg": 3.0},
        "ctpo-sapo",
        {"parameters": {"tau_pos": 2.0, "tau_neg": 3.0}},
    ),
    "geo_mean": (
        {"clip_ratio_low": 0.03, "clip_ratio_high": 0.03},
        "gmpo",
        {"eps_low": 0.03, "eps_high": 0.03},
    ),
}


@pytest.mark.parametrize("theirs", SHARED)
def test_a_loss_that_verl_has_too_is_verls(worker, rows, theirs):
    actor, ours, settings = SHARED[theirs]
    # verl's sapo and geo_mean know one reduction; its geo_mean takes the mean of each micro-batch,
    # so that those of two micro-batches do not add up to that of the mini-batch.
    split = {"mini_batch_size": 6, "micro_batch_size": 6 if theirs == "geo_mean" else 3}
    for reduction in BOTH if theirs in ("vanilla", "gspo", "cispo") else BOTH[:1]:
        config = CTPOPolicyLossConfig(loss_mode=ours, **settings)
        found = train(worker, rows, config, reduction, **split)
        wanted = train(
            worker, rows, (PolicyLossConfig(loss_mode=theirs), actor), reduction, **split
        )
        assert_same(found, wanted["loss"], wanted["grad_norm"])
        assert found.keys() >= wanted.keys()


def test_metrics_are_means_over_the_tokens_of_all_micro_batches(worker, model, rows):
    config = CTPOPolicyLossConfig(loss_mode="ctpo")
    found = train(worker, rows, config, mini_batch_size=3, micro_batch_tokens=20)
    _, _, statistics = by_autograd(model, rows, preset("ctpo"))
    summary = statistics.summary()
    for name, value in summary.items():
        assert found[f"actor/ctpo/{name}"] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert found["actor/ppo_kl"] == pytest.approx(-summary["log_ratio/mean"], rel=1e-4)
    assert found["actor/pg_clipfrac"] == summary["clip/high"] + summary["clip/low"] > 0


def test_before_the_first_update_log_rho_is_0_if_old_log_probs_are_the_models(worker, model, rows):
    config = CTPOPolicyLossConfig(loss_mode="ctpo")
    key = "actor/ctpo/on_policy/log_rho_max"
    split = {"mini_batch_size": 3, "micro_batch_size": 3}
    weights = {name: w.clone() for name, w in worker.engine.module.state_dict().items()}
    (group,) = worker.engine.optimizer.param_groups
    group["lr"] = 0.01
    try:
        found = train(worker, random_rows(model, spread=0.0), config, **split)
    finally:
        group["lr"] = 0.0
        worker.engine.module.load_state_dict(weights)
    assert found[key] < 1e-5 < 0.01 < found["actor/ctpo/log_rho/max"]
