"""Our losses in tinker's own code: what it does on the client, and its tracer for the server."""

import pytest
import torch

import ctpo
from ctpo.objective import PRESETS, REDUCTIONS, Mismatch
from tests.engines import conformance

tinker = pytest.importorskip("tinker", reason="needs the package tinker")

from tinker.lib.public_interfaces.custom_loss import (  # noqa: E402
    check_loss_inputs,
    encode_graph,
    trace_loss,
)
from tinker.lib.public_interfaces.training_client import TrainingClient  # noqa: E402

from ctpo.engines.tinker import INPUT_RANKS, TinkerLoss, token_weights, traced_loss  # noqa: E402


def data(batch, old="logprobs", **more):
    made = []
    for i, response in enumerate(batch):
        length = len(response.logprobs)
        columns = {
            old: response.old_logprobs,
            "advantages": torch.full((length,), response.advantage),
            "mask": response.mask.float(),
            "target_tokens": torch.arange(length),
        } | {name: values[i] for name, values in more.items()}
        made.append(
            tinker.Datum(
                model_input=tinker.ModelInput.from_ints(list(range(length))),
                loss_fn_inputs={k: tinker.TensorData.from_torch(v) for k, v in columns.items()},
            )
        )
    return made


def forward(batch):
    """What the server answers to a forward pass."""
    return tinker.ForwardBackwardOutput(
        loss_fn_output_type="TensorData",
        loss_fn_outputs=[{"logprobs": tinker.TensorData.from_torch(r.logprobs)} for r in batch],
        metrics={},
    )


def by_tinker(batch, given, loss):
    """Loss and gradients as tinker takes them to its server: weights of a cross-entropy."""
    result = TrainingClient._compute_custom_loss(given, loss, forward(batch))
    sent = [datum.loss_fn_inputs["weights"].to_torch() for datum in result.data]
    return result.loss_sum, [-weights for weights in sent], result.metrics


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("preset", conformance.PRESETS)
def test_on_the_client_loss_and_gradient_are_ours(preset, reduction):
    batch = conformance.responses()
    loss = TinkerLoss(ctpo.preset(preset), reduction=reduction)
    value, gradients, metrics = by_tinker(batch, data(batch), loss)
    conformance.check(value, gradients, preset, batch, reduction)
    assert metrics["ctpo/log_rho/max"] >= metrics["ctpo/log_rho/mean"]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("preset", PRESETS)
def test_traced_for_the_server_loss_and_gradient_are_ours(preset, reduction):
    batch = conformance.responses()
    handle = trace_loss(traced_loss(ctpo.preset(preset)), INPUT_RANKS, "session")
    encode_graph(handle)  # all of it can be sent
    weights = token_weights([r.mask for r in batch], reduction)
    given = data(batch, "old_logprobs", weights=weights)
    check_loss_inputs(handle, given)
    value, gradients, metrics = by_tinker(batch, given, handle)
    conformance.check(value, gradients, preset, batch, reduction)
    assert metrics["custom/tokens:sum"] == sum(int(r.mask.sum()) for r in batch)


def test_positions_are_written_as_every_engine_writes_them(tmp_path):
    batch = conformance.responses()
    loss = TinkerLoss(ctpo.preset("ctpo"))
    for half in (batch[:2], batch[2:]):
        by_tinker(half, data(half), loss)
    loss.write_positions(tmp_path / "positions.parquet", 1)
    conformance.check_positions(tmp_path / "positions.parquet", "ctpo", batch)
    with pytest.raises(ValueError, match="batch 2 has no statistics"):
        loss.write_positions(tmp_path / "positions.parquet", 2)


@pytest.mark.parametrize("field", ["logprobs", "advantages", "mask"])
def test_a_datum_that_lacks_a_field_is_named(field):
    batch = conformance.responses()
    given = data(batch)
    del given[2].loss_fn_inputs[field]
    with pytest.raises(ValueError, match=rf"datum\[2\] has no loss_fn_inputs\['{field}'\]"):
        by_tinker(batch, given, TinkerLoss(ctpo.preset("ctpo")))
    given = data(batch)
    given[1].loss_fn_inputs[field] = tinker.TensorData.from_torch(torch.ones(3))
    with pytest.raises(ValueError, match=rf"datum\[1\] .*'{field}'.* shape \(3,\).*\(23,\)"):
        by_tinker(batch, given, TinkerLoss(ctpo.preset("ctpo")))


def test_what_the_server_cannot_do_is_refused():
    weighted = ctpo.preset("ctpo", mismatch=Mismatch(level="prefix"))
    with pytest.raises(ValueError, match="mismatch is Mismatch"):
        traced_loss(weighted)
    with pytest.raises(ValueError, match="reduction"):
        TinkerLoss(ctpo.preset("ctpo"), reduction="mean")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reduction"):
        token_weights([torch.ones(3)], "mean")  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", ["anchor", "positions", "updates_per_batch"])
def test_what_tinker_leaves_no_choice_of_is_refused_by_name(setting):
    with pytest.raises(ValueError, match=f"^{setting} is 1; leave it out"):
        TinkerLoss("ctpo", **{setting: 1})  # type: ignore[arg-type]
