"""Every adapter in the shape that its engine documents: the loss is ours, and so are its files."""

import logging
import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import ctpo
from ctpo.engines import nemo_rl, roll, skyrl, update_files
from ctpo.engines.batch_files import files_after, write_positions
from ctpo.engines.custom_loss import CustomLoss
from ctpo.engines.skyrl import check as check_skyrl
from ctpo.objective import Mismatch
from ctpo.report.positions import Positions
from tests.engines import conformance, stand_ins
from tests.engines.stand_ins import ENGINES


@pytest.mark.parametrize("preset", conformance.PRESETS)
@pytest.mark.parametrize("engine", ENGINES)
def test_loss_and_gradient_are_ours(engine, preset):
    run, reduction = ENGINES[engine]
    batch = conformance.responses()
    loss, gradients = run(preset, batch)
    conformance.check(loss, gradients, preset, batch, reduction)


@pytest.mark.parametrize("engine", ENGINES)
def test_parameters_have_the_same_names(engine):
    run, _ = ENGINES[engine]
    batch = conformance.responses()
    plain, _ = run("ctpo", batch)
    changed, _ = run("ctpo", batch, eps_low=1e-4, dual_clip="off")
    assert changed != plain
    with pytest.raises(ValueError, match="eps_lower.*eps_low"):
        run("ctpo", batch, eps_lower=0.1)


@pytest.fixture
def steps():
    """An optimizer, as an engine steps it after the calls of a loss."""
    yield torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    for files in update_files._open.values():
        files.close()
    update_files._open.clear()


@pytest.mark.parametrize("engine", ENGINES)
def test_positions_are_written_after_the_last_update_on_a_batch(engine, steps, tmp_path):
    run, _ = ENGINES[engine]
    batch, table = conformance.responses(), str(tmp_path / "positions.parquet")
    for part in (batch[:2], batch[2:]):
        steps.step()  # a critic's, say: no loss of ours before it
        assert not (tmp_path / "positions.parquet").exists()
        run("ctpo", part, positions=table, updates_per_batch=2)
        steps.step()
        steps.step()  # of the same update
    conformance.check_positions(table, "ctpo", batch)


def read(columns):
    """Statistics by position as the report reads them."""
    return Positions({name: np.array(values) for name, values in columns.items()}).pool()


def test_readers_add_up_the_files_of_ranks(tmp_path):
    batch = conformance.responses() * 40
    for rank, part in enumerate((batch[:60], batch[60:])):
        _, _, statistics = conformance.on_plain_tensors("ctpo", part, "token-mean")
        write_positions(tmp_path, statistics, 1, rank)
    _, _, statistics = conformance.on_plain_tensors("ctpo", batch, "token-mean")
    columns = dict(statistics.to_columns())
    whole = read(columns | {"batch": [1] * len(columns["tokens"])})
    pooled = read(pq.read_table(tmp_path).to_pydict())
    assert len(pooled.std)
    np.testing.assert_array_equal(pooled.tokens, whole.tokens)
    np.testing.assert_allclose(pooled.std, whole.std, rtol=1e-4)
    assert files_after(tmp_path, 0) and not files_after(tmp_path, 1)


def test_a_run_that_goes_on_overwrites_no_file(steps, tmp_path):
    batch = conformance.responses()
    for expected in (1, 2):
        stand_ins.run_skyrl("ctpo", batch, positions=tmp_path, updates_per_batch=1)
        steps.step()
        update_files._open.pop(tmp_path).close()
        assert len(list(tmp_path.iterdir())) == expected


def test_a_loss_that_travels_to_another_process_is_the_same(steps, tmp_path):
    batch = conformance.responses()
    loss = stand_ins.SkyRLLoss("ctpo", positions=tmp_path, updates_per_batch=1)
    for copy in range(2):  # as an engine sends one with every batch
        stand_ins.run_skyrl("ctpo", batch, loss=pickle.loads(pickle.dumps(loss)))
        steps.step()
        assert len(list(tmp_path.iterdir())) == copy + 1


@pytest.mark.parametrize(
    ("run", "config", "words"),
    [
        (stand_ins.run_skyrl, stand_ins.algorithm(token_mask_is_threshold_low=0.5), "holes"),
        (stand_ins.run_skyrl, stand_ins.algorithm(token_mask_is_threshold_high=2.0), "holes"),
        (stand_ins.run_skyrl, stand_ins.algorithm(tis_ratio_type="token"), "mismatch_cap"),
        (stand_ins.run_skyrl, stand_ins.algorithm(sequence_mask_metric="product"), "mismatch_cap"),
        (stand_ins.run_skyrl, stand_ins.AlgorithmConfig(eps_clip_high=0.28), "own losses"),
        (stand_ins.run_slime, stand_ins.megatron_args(context_parallel_size=2), "not neighbours"),
        (stand_ins.run_slime, stand_ins.megatron_args(rollout_top_p=0.9), "cut off"),
        (stand_ins.run_slime, stand_ins.megatron_args(use_opsm=True), "mismatch_cap"),
        (stand_ins.run_slime, stand_ins.megatron_args(use_kl_loss=True), "goes without"),
        (stand_ins.run_slime, stand_ins.megatron_args(entropy_coef=0.01), "goes without"),
        (
            stand_ins.run_slime,
            stand_ins.megatron_args(advantage_estimator="gspo"),
            "objective: gspo",
        ),
        (stand_ins.run_slime, stand_ins.megatron_args(ctpo={"anchor": "old"}), "leave it out"),
        (
            stand_ins.run_slime,
            stand_ins.megatron_args(
                recompute_loss_function=True, ctpo={"positions": "x", "updates_per_batch": 1}
            ),
            "counted twice",
        ),
        (
            stand_ins.run_nemo_rl,
            stand_ins.ClippedPGLossConfig(force_on_policy_ratio=True),
            "every ratio would be 1",
        ),
        (
            stand_ins.run_nemo_rl,
            stand_ins.ClippedPGLossConfig(truncated_importance_sampling_type="icepop"),
            "mismatch_cap",
        ),
        (
            stand_ins.run_roll,
            stand_ins.pipeline_config(force_disable_old_logprobs_recompute=True),
            "lacks these",
        ),
        (stand_ins.run_roll, stand_ins.pipeline_config(importance_sampling="seq"), "own ratio"),
        (
            stand_ins.run_roll,
            stand_ins.pipeline_config(
                actor_infer=SimpleNamespace(generating_args=SimpleNamespace(top_p=0.99, top_k=100))
            ),
            "cut off",
        ),
        *(
            (
                stand_ins.run_roll,
                stand_ins.pipeline_config(
                    enable_old_logprobs_recompute=recompute,
                    train_infer_correction=SimpleNamespace(
                        is_weight=SimpleNamespace(enabled=False),
                        filters=[SimpleNamespace(enabled=True, agg_type=level)],
                    ),
                ),
                words,
            )
            for level, recompute, words in [
                ("token", True, "holes"),
                ("segment", True, "holes"),
                ("sequence", False, "inside its own loss"),
            ]
        ),
    ],
)
def test_what_would_change_the_ratio_or_do_nothing_is_refused(run, config, words):
    name = "args" if run is stand_ins.run_slime else "config"
    with pytest.raises(ValueError, match=words):
        run("ctpo", conformance.responses(), **{name: config})


def test_where_a_product_restarts_there_is_a_warning():
    config = SimpleNamespace(
        trainer=SimpleNamespace(algorithm=stand_ins.AlgorithmConfig()),
        generator=SimpleNamespace(
            step_wise_trajectories=True, sampling_params=SimpleNamespace(top_p=1.0, top_k=-1)
        ),
    )
    with pytest.warns(UserWarning, match="step_wise_trajectories.*begins its product anew"):
        check_skyrl(config)
    config.generator.sampling_params.top_p = 0.95
    with pytest.raises(ValueError, match="sampling_params.top_p is 0.95"):
        check_skyrl(config)

    batch = conformance.responses()
    given = stand_ins.megatron_batch(batch)
    given["rollout_mask_sums"] = [mask.sum() + 3 for mask in given["loss_masks"]]
    with pytest.warns(UserWarning, match="parts of one rollout.*begins its product anew"):
        stand_ins.slime.loss_of(
            stand_ins.megatron_args(),
            given,
            torch.zeros(1, 2, 3),
            [r.logprobs for r in batch],
            torch.sum,
        )


@pytest.mark.parametrize(("where", "hole"), [("middle", True), ("start", False), ("end", False)])
def test_tokens_that_prime_rl_takes_out_of_the_mask_are_seen(where, hole):
    (response,) = conformance.responses()[1:2]
    response.mask[:] = True
    (inputs,) = stand_ins.prime_rl_inputs([response], [response.logprobs])
    cut = {"start": slice(0, 3), "middle": slice(8, 10), "end": slice(20, 23)}[where]
    inputs.loss_weights = torch.ones(23)
    inputs.loss_weights[cut] = 0
    inputs.loss_mask[cut] = False
    if hole:
        with pytest.raises(ValueError, match="2 of the policy's tokens .*holes"):
            stand_ins.prime_rl.loss(inputs)
        inputs.inference_logprobs[cut] = 0.0  # a tool's: never sampled
    elif where == "start":
        with pytest.warns(UserWarning, match="first tokens.*anew"):
            stand_ins.prime_rl.loss(inputs)
        return
    stand_ins.prime_rl.loss(inputs)


def test_weights_of_tokens_scale_their_loss():
    (response,) = conformance.responses()[1:2]
    (inputs,) = stand_ins.prime_rl_inputs([response], [response.logprobs])
    plain = stand_ins.prime_rl.loss(inputs).loss
    inputs.loss_weights = torch.full((23,), 0.5)
    torch.testing.assert_close(stand_ins.prime_rl.loss(inputs).loss, plain / 2)


def test_the_anchor_says_which_log_probs_the_ratio_is_against():
    r = conformance.responses()[1]
    logprobs, advantages, mask = [r.logprobs], torch.tensor([r.advantage]), [r.mask]
    both = {"old": [r.old_logprobs], "rollout": [r.old_logprobs - 0.01]}
    for anchor, against in both.items():
        out = CustomLoss(anchor=anchor)(logprobs, advantages, mask, **both)
        right = ctpo.preset("ctpo")(logprobs, against, advantages, mask)
        torch.testing.assert_close(out.per_token, right.per_token)
        with pytest.raises(ValueError, match=f"no {anchor} log-probs, which anchor needs"):
            other = {name: value for name, value in both.items() if name != anchor}
            CustomLoss(anchor=anchor)(logprobs, advantages, mask, **other)
    capped = CustomLoss(mismatch_cap=1.02)(logprobs, advantages, mask, **both)
    weighed = Mismatch(level="prefix", cap=1.02)
    right = ctpo.preset("ctpo", mismatch=weighed)(
        logprobs, both["old"], advantages, mask, rollout_logprobs=both["rollout"]
    )
    torch.testing.assert_close(capped.per_token, right.per_token)
    with pytest.raises(ValueError, match="no rollout log-probs, which mismatch_cap needs"):
        CustomLoss(mismatch_cap=2.0)(logprobs, advantages, mask, old=both["old"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"anchor": "new"}, "anchor"),
        ({"anchor": "rollout", "mismatch_cap": 5.0}, "count it twice"),
        ({"positions": "x"}, "updates_per_batch None"),
        ({"updates_per_batch": 2}, "positions is None"),
        ({"positions": "x", "updates_per_batch": 0}, "at least 1"),
        ({"objective": ctpo.preset("ctpo"), "eps_low": 0.1}, "eps_low given beside"),
    ],
)
def test_settings_without_effect_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        CustomLoss(**settings)


def test_a_mismatch_before_the_first_update_is_said_once(caplog):
    r = conformance.responses()[1]
    loss = CustomLoss(anchor="rollout")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            loss([r.logprobs], torch.ones(1), [r.mask], rollout=[r.logprobs - 0.02])
    assert [record.message.count("NOT on-policy") for record in caplog.records] == [1]


@pytest.mark.parametrize(
    ("engine", "call"),
    [
        ("skyrl", lambda: skyrl.register()),
        ("roll", lambda: roll.worker()),
        (
            "nemo-rl",
            lambda: nemo_rl.loss_function(SimpleNamespace(policy=SimpleNamespace(generation={}))),
        ),
    ],
)
def test_an_engine_that_is_not_installed_is_named(engine, call, monkeypatch):
    package = engine.replace("-", "_")
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not there
    for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError, match=f"needs {engine}, .*install {engine}"):
        call()
