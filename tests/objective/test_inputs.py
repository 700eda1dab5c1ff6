"""What a call refuses: always what can be seen without reading values, the rest with `check`."""

import math
from typing import Any

import pytest
import torch

from ctpo.objective import PRESETS, Mismatch, preset

CTPO = preset("ctpo")


def good():
    return {
        "logprobs": torch.zeros(2, 3),
        "old_logprobs": torch.zeros(2, 3),
        "advantages": torch.ones(2),
        "mask": torch.ones(2, 3),
    }


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("logprobs", torch.zeros(3), r"logprobs must be padded, \[B, T\], got shape \[3\]"),
        ("logprobs", torch.zeros(0, 3), r"the batch is empty: logprobs has shape \[0, 3\]"),
        ("logprobs", torch.zeros(2, 0), r"the batch is empty: logprobs has shape \[2, 0\]"),
        ("old_logprobs", torch.zeros(2, 4), r"old_logprobs must have the shape .* got \[2, 4\]"),
        ("old_logprobs", torch.zeros(1, 3), r"old_logprobs must have the shape .* got \[1, 3\]"),
        ("mask", torch.ones(3), r"mask must have the shape of logprobs, \[2, 3\], got \[3\]"),
        ("advantages", torch.ones(3), r"advantages must be \[B\] = \[2\] or \[B, T\] = \[2, 3\]"),
        ("advantages", torch.ones(2, 1), r"advantages must be .* got \[2, 1\]"),
        ("mask", torch.ones(2, 3, device="meta"), "mask is on meta, logprobs on cpu"),
        ("logprobs", torch.zeros(()), r"logprobs must be padded, \[B, T\], got shape \[\]"),
        ("logprobs", torch.zeros(1, 2, 3), r"must be padded, \[B, T\], got shape \[1, 2, 3\]"),
    ],
)
def test_a_shape_or_device_that_does_not_fit_raises(name, value, message):
    CTPO(**good())
    with pytest.raises(ValueError, match=message):
        CTPO(**{**good(), name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("logprobs", torch.zeros(2, 3).long(), "logprobs must be floating point, got torch.int64"),
        ("old_logprobs", torch.zeros(2, 3).int(), "old_logprobs must be floating point"),
        ("advantages", torch.ones(2).long(), "advantages must be floating point"),
        ("advantages", [1.0, 1.0], "advantages must be a torch.Tensor, got list"),
        ("mask", torch.ones(2, 3) + 0j, "mask must be boolean or 0/1, got torch.complex64"),
        *(
            (name, None, f"{name} must be a torch.Tensor, got NoneType")
            for name in ("logprobs", "old_logprobs", "advantages", "mask")
        ),
        ("cu_seqlens", [0, 3], "cu_seqlens must be a torch.Tensor, got list"),
        ("process_group", "world", "process_group must be a ProcessGroup, got 'world'"),
    ],
)
def test_a_type_that_is_not_usable_raises(name, value, message):
    with pytest.raises(TypeError, match=message):
        CTPO(**{**good(), name: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["logprobs", "old_logprobs"])
def test_check_names_row_position_and_value(name, value):
    inputs = good()
    inputs[name][1, 2] = value
    CTPO(**inputs)
    with pytest.raises(ValueError, match=f"^{name} at row 1, position 2 is {value}; .*finite"):
        CTPO(**inputs, check=True)
    inputs["mask"][1, 2] = 0
    assert CTPO(**inputs, check=True).per_token.isfinite().all()


def test_check_reads_the_advantages_too():
    inputs = good()
    inputs["advantages"][1] = math.nan
    with pytest.raises(
        ValueError, match=r"advantages at row 1, position 0 is nan; .*\(2 more like it\)"
    ):
        CTPO(**inputs, check=True)
    inputs["mask"][1] = 0
    assert CTPO(**inputs, check=True).per_token.isfinite().all()


@pytest.mark.parametrize("name", ["logprobs", "old_logprobs"])
def test_check_refuses_probabilities_and_losses_but_no_rounding(name):
    inputs = good()
    inputs[name][1, 2] = 0.03  # as bfloat16 leaves it
    CTPO(**inputs, check=True)
    inputs[name][0, 1] = 0.93
    with pytest.raises(ValueError, match=f"^{name} at row 0, position 1 is 0.93.*; a log-prob"):
        CTPO(**inputs, check=True)
    inputs["mask"][0, 1] = 0
    CTPO(**inputs, check=True)


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("value", [0.5, 2.0, -1.0, math.nan])
def test_mask_values_other_than_0_and_1_raise(value, check):
    """On a CPU reading them is free, so that it takes no flag."""
    inputs = good()
    inputs["mask"][0, 1] = value
    with pytest.raises(ValueError, match=f"mask at row 0, position 1 is {value}; only 0 and 1"):
        CTPO(**inputs, check=check)


def test_an_integer_mask_other_than_0_and_1_raises():
    with pytest.raises(ValueError, match="mask at row 0, position 0 is 2; .*5 more like it"):
        CTPO(**{**good(), "mask": torch.full((2, 3), 2)})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_check_names_row_and_position_in_packed_tokens(value):
    inputs: Any = {name: torch.zeros(5) for name in ("logprobs", "old_logprobs")}
    inputs |= {"advantages": torch.ones(2), "mask": torch.ones(5)}
    edges = torch.tensor([0, 2, 5])
    inputs["old_logprobs"][3] = value
    with pytest.raises(ValueError, match=f"^old_logprobs at row 1, position 1 is {value}"):
        CTPO(**inputs, cu_seqlens=edges, check=True)


def test_check_names_row_and_position_in_a_list():
    old = [torch.zeros(2), torch.zeros(3)]
    old[1][2] = math.nan
    with pytest.raises(ValueError, match="^old_logprobs at row 1, position 2 is nan"):
        CTPO(
            [torch.zeros(2), torch.zeros(3)],
            old,
            torch.ones(2),
            [torch.ones(2), torch.ones(3)],
            check=True,
        )


def test_check_reads_the_rollout_logprobs_too():
    objective = preset("ctpo", mismatch=Mismatch(level="prefix"))
    rollout = torch.zeros(2, 3)
    rollout[0, 2] = -math.inf
    objective(**good(), rollout_logprobs=rollout)
    with pytest.raises(ValueError, match="^rollout_logprobs at row 0, position 2 is -inf"):
        objective(**good(), rollout_logprobs=rollout, check=True)


@pytest.mark.parametrize("layout", ["padded", "packed", "mismatch", "literal"])
@pytest.mark.parametrize("name", PRESETS)
def test_a_call_reads_nothing_back_to_the_host(name, layout):
    """Tensors on `meta` have no values: whatever asks for one, or for a shape by value, raises."""
    inputs: Any = {key: value.to("meta") for key, value in good().items()}
    if layout == "packed":
        inputs = {key: value.flatten() for key, value in inputs.items()}
        inputs["cu_seqlens"] = torch.tensor([0, 2, 6], device="meta")
    objective = preset(name)
    if layout == "mismatch":
        inputs["rollout_logprobs"] = inputs["old_logprobs"]
        objective = preset(name, mismatch=Mismatch(level="prefix"))
    if layout == "literal" and name.startswith("ctpo"):
        objective = preset(name, gradient="literal")
    logprobs = inputs["logprobs"].requires_grad_()
    out = objective(**inputs)
    out.mean("seq-mean-token-mean").backward()
    assert logprobs.grad.shape == logprobs.shape
    assert out.weights.device.type == out.sequences().k3.device.type == "meta"
    merged = out.statistics + out.statistics
    assert merged.tokens.device.type == "meta"
    with pytest.raises((NotImplementedError, RuntimeError)):
        objective(**inputs, check=True)


def inputs_of(make_batch, scale=0.1):
    batch = make_batch(6, 9, scale=scale)
    rollout = (batch[1] - 0.1).detach()
    return dict(
        zip(("logprobs", "old_logprobs", "advantages", "mask"), batch, strict=True)
    ), rollout


@pytest.mark.parametrize("holes", [True, False])
@pytest.mark.parametrize("name", PRESETS)
def test_a_call_leaves_its_inputs_and_its_results_alone(name, holes, make_batch, scale_of):
    """Whatever is computed in place inside, and however often results are asked for."""
    inputs, rollout = inputs_of(make_batch, scale_of(name))
    if not holes:
        inputs["mask"][:] = True
    for mismatch in (None, Mismatch(level="token")):
        extra = {} if mismatch is None else {"rollout_logprobs": rollout}
        before = {key: value.detach().clone() for key, value in {**inputs, **extra}.items()}
        out = preset(name, mismatch=mismatch)(**inputs, **extra)
        asked = [
            (out.weights, out.per_token.detach().clone(), out.sequences(), out.mask)
            for _ in range(2)
        ]
        out.mean("token-mean").backward()
        asked.append((out.weights, out.per_token.detach().clone(), out.sequences(), out.mask))
        for key, value in {**inputs, **extra}.items():
            assert torch.equal(value, before[key]), key
        for weights, loss, sequences, mask in asked[1:]:
            assert torch.equal(weights, asked[0][0])
            assert torch.equal(loss, asked[0][1])
            assert all(map(torch.equal, sequences, asked[0][2]))
            assert torch.equal(mask, asked[0][3])
        again = preset(name, mismatch=mismatch)(**inputs, **extra)
        assert torch.equal(again.per_token, out.per_token)
        assert again.statistics.to_columns() == out.statistics.to_columns()


@pytest.mark.parametrize("name", PRESETS)
def test_tensors_need_not_be_contiguous(name, make_batch, scale_of):
    inputs, _ = inputs_of(make_batch, scale_of(name))

    def strided(x):
        return torch.stack([x, x], dim=-1)[..., 0].mT.contiguous().mT if x.ndim == 2 else x

    expected = preset(name)(**inputs)
    out = preset(name)(**{key: strided(value) for key, value in inputs.items()})
    torch.testing.assert_close(out.per_token, expected.per_token)
    slopes = [
        torch.autograd.grad(x.per_token.sum(), inputs["logprobs"])[0] for x in (out, expected)
    ]
    torch.testing.assert_close(slopes[0], slopes[1])
    # A mask of one row, for all.
    inputs["mask"] = inputs["mask"][:1].expand(6, 9)
    one = preset(name)(**inputs)
    inputs["mask"] = inputs["mask"].clone()
    assert torch.equal(one.per_token, preset(name)(**inputs).per_token)


@pytest.mark.parametrize("name", PRESETS)
def test_without_a_gradient_the_loss_is_the_same(name, make_batch, scale_of):
    inputs, _ = inputs_of(make_batch, scale_of(name))
    expected = preset(name)(**inputs)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            out = preset(name)(**inputs)
            loss = out.mean("token-mean")
        assert not loss.requires_grad
        assert torch.equal(out.per_token, expected.per_token)
    constant = preset(name)(**{**inputs, "logprobs": inputs["logprobs"].detach()})
    assert not constant.per_token.requires_grad
    assert torch.equal(constant.per_token, expected.per_token)


@pytest.mark.parametrize("name", PRESETS)
def test_autocast_changes_nothing(name, make_batch, scale_of):
    """Trainers call their losses inside of it; the objective stays in float32."""
    inputs, _ = inputs_of(make_batch, scale_of(name))
    expected = preset(name)(**inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = preset(name)(**inputs)
        loss = out.mean("seq-mean-token-mean")
    assert out.per_token.dtype == loss.dtype == torch.float32
    assert torch.equal(out.per_token, expected.per_token)
    assert torch.equal(loss, expected.mean("seq-mean-token-mean"))
    assert out.statistics.to_columns() == expected.statistics.to_columns()


def test_a_second_derivative_raises(make_batch):
    """The slope is a constant to autograd; a silent zero would be wrong."""
    inputs, _ = inputs_of(make_batch)
    loss = CTPO(**inputs).mean("token-mean")
    (slope,) = torch.autograd.grad(loss, inputs["logprobs"], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable|does not require grad"):
        torch.autograd.grad(slope.sum(), inputs["logprobs"])
