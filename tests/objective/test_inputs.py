"""What a call refuses: always what can be seen without reading values, the rest with `check`."""

import math

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
def test_check_names_the_position_in_packed_tokens(value):
    inputs = {name: torch.zeros(5) for name in ("logprobs", "old_logprobs")}
    inputs |= {"advantages": torch.ones(2), "mask": torch.ones(5)}
    edges = torch.tensor([0, 2, 5])
    inputs["old_logprobs"][3] = value
    with pytest.raises(ValueError, match=f"^old_logprobs at position 3 is {value}"):
        CTPO(**inputs, cu_seqlens=edges, check=True)


def test_check_reads_the_rollout_logprobs_too():
    objective = preset("ctpo", mismatch=Mismatch(level="prefix"))
    rollout = torch.zeros(2, 3)
    rollout[0, 2] = -math.inf
    objective(**good(), rollout_logprobs=rollout)
    with pytest.raises(ValueError, match="^rollout_logprobs at row 0, position 2 is -inf"):
        objective(**good(), rollout_logprobs=rollout, check=True)


@pytest.mark.parametrize("name", PRESETS)
def test_a_call_reads_nothing_back_to_the_host(name):
    """Tensors on `meta` have no values: whatever asks for one, or for a shape by value, raises."""
    inputs = {key: value.to("meta") for key, value in good().items()}
    logprobs = inputs["logprobs"].requires_grad_()
    out = preset(name)(**inputs)
    out.mean("seq-mean-token-mean").backward()
    assert logprobs.grad.shape == (2, 3)
    merged = out.statistics + out.statistics
    assert merged.tokens.device.type == "meta"
    with pytest.raises((NotImplementedError, RuntimeError)):
        preset(name)(**inputs, check=True)
