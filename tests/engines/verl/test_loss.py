"""The loss as verl's registry hands it out: values, gradients, weights, metrics, refusals."""

import pytest
import torch

pytest.importorskip("verl", reason="verl has no release for this Python")

from verl import DataProto
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, get_policy_loss_fn
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_add_to_batch
from verl.workers.config import ActorConfig, PolicyLossConfig

from ctpo.engines.verl import loss, recording
from ctpo.engines.verl.loss_config import CTPOPolicyLossConfig
from ctpo.engines.verl.names import PRESET_OF, loss_name
from ctpo.objective import PRESETS, REDUCTIONS, Mismatch, preset
from ctpo.objective.statistics.steps import over_ranks

ROWS, COLUMNS = 9, 14


def actor_config(policy_loss=None, **settings):
    return ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        policy_loss=policy_loss or CTPOPolicyLossConfig(),
        **settings,
    )


def call(batch, reduction="seq-mean-token-mean", config=None, **sizes):
    """What verl's `ppo_loss` does."""
    logprobs, old_logprobs, advantages, mask = batch[:4]
    config = config or actor_config()
    config.global_batch_info.update(sizes)
    return get_policy_loss_fn(config.policy_loss.loss_mode)(
        old_log_prob=old_logprobs,
        log_prob=logprobs,
        advantages=advantages[:, None].expand_as(logprobs),
        response_mask=mask,
        loss_agg_mode=reduction,
        config=config,
        rollout_is_weights=batch[4] if len(batch) > 4 else None,
    )


def part(batch, rows):
    """Some rows, cut to the longest as verl's micro-batches are."""
    width = int(batch[3][rows].any(dim=0).nonzero().max()) + 1
    return [x[rows] if x.ndim == 1 else x[rows, :width] for x in batch]


def assert_close(actual, expected):
    """To 1e-6 of the largest entry; verl adds 1e-8 to lengths."""
    assert expected.abs().max() > 0
    assert (actual - expected).abs().max() <= 1e-6 * expected.abs().max()


def gradient(value, batch):
    return torch.autograd.grad(value, batch[0])[0]


def test_every_preset_is_a_loss_of_verls_under_a_name_of_its_own():
    assert len(PRESET_OF) == len(PRESETS)
    for name in PRESETS:
        assert get_policy_loss_fn(loss_name(name)) is loss.policy_loss
    for name in ("vanilla", "gspo", "cispo", "sapo", "geo_mean"):
        assert get_policy_loss_fn(name) is not loss.policy_loss
    assert [name for name in PRESETS if loss_name(name) != name] == ["gspo", "cispo", "sapo"]
    with pytest.raises(ValueError, match="did you mean 'ctpo-printed'"):
        loss_name("ctpo-print")


def test_a_name_that_is_taken_is_not_taken_over(monkeypatch):
    monkeypatch.setitem(POLICY_LOSS_REGISTRY, "ctpo", get_policy_loss_fn("vanilla"))
    with pytest.raises(RuntimeError, match="'ctpo' is already registered .* from verl"):
        loss.register()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", PRESETS)
def test_loss_and_gradient_are_the_objectives(name, reduction, make_batch, scale_of):
    batch = make_batch(ROWS, COLUMNS, scale=scale_of(name), dtype=torch.float64)
    found, _ = call(batch, reduction, actor_config(CTPOPolicyLossConfig(loss_mode=loss_name(name))))
    expected = preset(name)(*batch).mean(reduction)
    assert_close(found, expected)
    assert_close(gradient(found, batch), gradient(expected, batch))
    # verl's own class does, too, where no parameter is changed.
    same, _ = call(batch, reduction, actor_config(PolicyLossConfig(loss_mode=loss_name(name))))
    assert same == found


def test_parameters_reach_the_objective(make_batch):
    batch = make_batch(ROWS, COLUMNS, dtype=torch.float64)
    changed = CTPOPolicyLossConfig(eps_low=0.1, power=0.0, dual_clip="off", parameters={})
    found, _ = call(batch, config=actor_config(changed))
    objective = preset("ctpo", eps_low=0.1, power=0.0, dual_clip=None)
    assert_close(found, objective(*batch).mean("seq-mean-token-mean"))
    assert found != call(batch)[0]


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_micro_batches_and_ranks_of_unequal_size_add_up(reduction, make_batch):
    batch = make_batch(ROWS, COLUMNS, dtype=torch.float64)
    whole, _ = call(batch, reduction)
    sizes = {
        "dp_size": 2,
        "batch_num_tokens": int(batch[3].sum()),
        "global_batch_size": ROWS,
    }
    pieces = [call(part(batch, rows), reduction, **sizes)[0] for rows in SPLIT]
    assert_close(sum(pieces) / 2, whole)  # verl averages over the two ranks
    slopes = gradient(sum(pieces) / 2, batch)
    assert_close(slopes, gradient(whole, batch))


SPLIT = (slice(0, 2), slice(2, 3), slice(3, 9))


def test_what_stands_at_masked_places_changes_nothing(make_batch):
    batch = make_batch(ROWS, COLUMNS, dtype=torch.float64)
    weights = torch.rand(ROWS, COLUMNS, dtype=torch.float64)
    expected, _ = call((*batch, weights))
    mask = batch[3]
    assert not mask.all()
    wild = [x.detach().masked_fill(~mask, torch.nan) for x in (batch[0], batch[1], weights)]
    logprobs = wild[0].requires_grad_()
    found, _ = call((logprobs, wild[1], batch[2], mask, wild[2]))
    assert found == expected
    assert gradient(found, [logprobs]).isfinite().all()


@pytest.mark.parametrize("level", ["token", "prefix", "sequence"])
def test_weights_against_the_generator_are_the_objectives(level, make_batch):
    """Through verl's own correction, to which we add the level `prefix`."""
    batch = make_batch(ROWS, COLUMNS, dtype=torch.float64)
    logprobs, old_logprobs, advantages, mask = batch
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(ROWS, COLUMNS, generator=generator, dtype=torch.float64)
    rollout = (old_logprobs - 0.2 * noise).masked_fill(~mask, -33.0)
    data = DataProto.from_single_dict(
        {
            "old_log_probs": old_logprobs,
            "rollout_log_probs": rollout,
            "response_mask": mask.double(),
        }
    )
    correction = {"rollout_is": level, "rollout_is_threshold": 1.3}
    data, said = compute_rollout_correction_and_add_to_batch(data, correction)
    found, _ = call((*batch, data.batch["rollout_is_weights"]))
    objective = preset("ctpo", mismatch=Mismatch(level=level, cap=1.3))
    out = objective(logprobs, old_logprobs, advantages, mask, rollout_logprobs=rollout)
    assert_close(found, out.mean("seq-mean-token-mean"))
    assert_close(gradient(found, batch), gradient(out.mean("seq-mean-token-mean"), batch))
    assert 0 < said["rollout_corr/rollout_is_ratio_fraction_high"] < 1


def test_weights_of_another_shape_are_refused(make_batch):
    batch = make_batch(ROWS, COLUMNS)
    with pytest.raises(ValueError, match=r"rollout_is_weights must have the shape .* \[9, 14\]"):
        call((*batch, torch.ones(ROWS, 1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: (b[0], b[1], b[2], b[3].long() * 2), "mask at row 0.* only 0 and 1"),
        (lambda b: (b[0], b[1][:, 1:], b[2], b[3]), r"old_logprobs must have the shape"),
        (lambda b: (b[0][:0], b[1][:0], b[2][:0], b[3][:0]), "the batch is empty"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(change, message, make_batch):
    with pytest.raises(ValueError, match=message):
        call(change(make_batch(ROWS, COLUMNS)))


def test_every_micro_batch_has_the_same_metrics(make_batch):
    batch = make_batch(ROWS, COLUMNS, dtype=torch.float64)
    _, metrics = call(batch)
    nothing = (*batch[:3], torch.zeros_like(batch[3]))
    value, of_nothing = call(nothing, batch_num_tokens=5, global_batch_size=9)
    assert value == 0 and metrics.keys() == of_nothing.keys()
    assert all(isinstance(value, float) for value in metrics.values())
    summary = preset("ctpo")(*batch).statistics.summary()
    assert metrics["actor/ctpo/clip/low"] == summary["clip/low"] > 0
    assert metrics["actor/ppo_kl"] == -summary["log_ratio/mean"]


def test_a_step_is_logged_as_the_mean_over_its_tokens_not_over_its_micro_batches(make_batch):
    batch = make_batch(ROWS, COLUMNS, dtype=torch.float64)
    with recording.record() as record:
        assert call(part(batch, SPLIT[0]))[1] == {}
        record.end_mini_batch()
        for rows in SPLIT[1:]:
            assert call(part(batch, rows))[1] == {}
    assert record.total is not None and record.before_updates is not None
    total, first = over_ranks([record.total, record.before_updates], None)
    found = loss.step_metrics(total, first)
    _, whole = call(batch)
    for name, value in whole.items():
        assert found[name] == pytest.approx(value, rel=1e-9, abs=1e-12), name
    alone = [call(part(batch, rows))[1]["actor/ctpo/clip/low"] for rows in SPLIT]
    assert sum(alone) / 3 != pytest.approx(whole["actor/ctpo/clip/low"], rel=0.01)
    largest = preset("ctpo")(*part(batch, SPLIT[0])).statistics.summary()
    expected = max(-largest["log_rho/min"], largest["log_rho/max"])
    assert found["actor/ctpo/on_policy/log_rho_max"] == expected


def test_positions_that_nobody_would_write_are_refused(make_batch, tmp_path):
    config = actor_config(CTPOPolicyLossConfig(positions=str(tmp_path)))
    with pytest.raises(RuntimeError, match="policy_loss.positions is .* called from elsewhere"):
        call(make_batch(ROWS, COLUMNS), config=config)


@pytest.mark.parametrize(
    ("setting", "value", "instead"),
    [
        ("clip_ratio", 0.1, "eps_low and eps_high"),
        ("clip_ratio_low", 0.1, "eps_low"),
        ("clip_ratio_high", 0.28, "eps_high"),
        ("clip_ratio_c", 10.0, "dual_clip"),
        ("tau_pos", 0.9, "parameters.tau_pos"),
    ],
)
def test_a_setting_without_effect_is_refused_by_name(setting, value, instead, make_batch):
    config = actor_config(**{setting: value})
    with pytest.raises(ValueError, match=f"actor.{setting} is {value}.*{instead}"):
        call(make_batch(ROWS, COLUMNS), config=config)


def test_a_parameter_of_verls_losses_in_its_own_section_is_refused(make_batch):
    config = actor_config(PolicyLossConfig(loss_mode="ctpo", kl_cov_ratio=0.1))
    with pytest.raises(ValueError, match="policy_loss.kl_cov_ratio is 0.1"):
        call(make_batch(ROWS, COLUMNS), config=config)


def test_half_precision_log_probs_are_warned_about(make_batch):
    batch = make_batch(ROWS, COLUMNS, dtype=torch.bfloat16)
    with pytest.warns(UserWarning, match="log-probs come in torch.bfloat16"):
        call(batch)
