"""Layouts: padded on either side, packed and listed tokens give the same numbers."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctpo.objective import PRESETS, REDUCTIONS, Mismatch, Objective, calibrate, preset, sqrt

PER_TOKEN = ("logprobs", "old_logprobs", "mask", "rollout_logprobs")


def sequences_of(lengths, *, seed, scale, holes=0.3, dtype=torch.float64):
    """A list of sequences with holes in their masks, one advantage each."""
    generator = torch.Generator().manual_seed(seed)

    def normal(n):
        return torch.randn(n, generator=generator, dtype=torch.float64)

    old = [-normal(n).abs() for n in lengths]
    return {
        "logprobs": [(x + scale * normal(len(x))).to(dtype) for x in old],
        "old_logprobs": [x.to(dtype) for x in old],
        "advantages": normal(len(lengths)).to(dtype),
        "mask": [torch.rand(n, generator=generator) >= holes for n in lengths],
        "rollout_logprobs": [(x + 0.2 * normal(len(x))).to(dtype) for x in old],
    }


def padded(batch, width, side):
    """[B, T]; what is put at padding does not matter, so NaN is."""

    def pad(piece):
        filler = torch.full((width - len(piece),), math.nan).to(piece.dtype)
        if piece.dtype == torch.bool:
            filler = filler.logical_and(torch.tensor(False))
        return torch.cat([piece, filler] if side == "right" else [filler, piece])

    return {
        name: torch.stack([pad(piece) for piece in value]) if isinstance(value, list) else value
        for name, value in batch.items()
    }


def edges_of(lengths):
    return torch.tensor([0, *lengths]).cumsum(dim=0)


def packed(batch, lengths):
    flat = {name: torch.cat(x) if isinstance(x, list) else x for name, x in batch.items()}
    return {**flat, "cu_seqlens": edges_of(lengths)}


def call(objective, inputs, upstream):
    """Results as lists of one tensor per sequence, of the places that `upstream` has.

    `upstream` is a weight per token in the layout of the inputs, NaN at padding.
    """
    logprobs = inputs["logprobs"]
    listed = isinstance(logprobs, list)
    leaves = [x.clone().requires_grad_() for x in (logprobs if listed else [logprobs])]
    arguments = {**inputs, "logprobs": leaves if listed else leaves[0]}
    if objective.mismatch is None:
        del arguments["rollout_logprobs"]
    out = objective(**arguments)
    losses = out.per_token if listed else [out.per_token]
    upstream = upstream if listed else [upstream]
    loss = sum((a * torch.nan_to_num(b)).sum() for a, b in zip(losses, upstream, strict=True))
    slopes = torch.autograd.grad(loss, leaves, retain_graph=True)
    means = {name: out.mean(name) for name in REDUCTIONS}
    mean_slopes = torch.autograd.grad(means["seq-mean-token-mean"], leaves)

    def pieces(x):
        x = x if isinstance(x, list | tuple) else [x]
        if listed:
            return list(x)
        (x,) = x
        real = ~upstream[0].isnan()
        if x.ndim == 1:
            return list(x.split(inputs["cu_seqlens"].diff().tolist()))
        return [row[keep] for row, keep in zip(x, real, strict=True)]

    return {
        "per_token": pieces([x.detach() for x in losses]),
        "gradient": pieces(slopes),
        "mean gradient": pieces(mean_slopes),
        "weights": pieces(out.weights),
        "mask": pieces(out.mask),
        "means": list(means.values()),
        "sequences": list(out.sequences()),
        "statistics": [
            torch.tensor(x, dtype=torch.float64) for x in out.statistics.to_columns().values()
        ],
        "summary": [torch.tensor(list(out.statistics.summary().values()), dtype=torch.float64)],
    }


def all_layouts(objective, batch, lengths, extra=0):
    generator = torch.Generator().manual_seed(9)
    upstream = [torch.randn(n, generator=generator, dtype=torch.float64) for n in lengths]
    width = max(lengths) + extra
    wide = {"upstream": upstream}
    return {
        "list": call(objective, batch, upstream),
        "packed": call(objective, packed(batch, lengths), torch.cat(upstream)),
        "right": call(
            objective, padded(batch, width, "right"), padded(wide, width, "right")["upstream"]
        ),
        "left": call(
            objective, padded(batch, width, "left"), padded(wide, width, "left")["upstream"]
        ),
    }


def assert_same(results, rtol, atol):
    expected = results.pop("list")
    for layout, actual in results.items():
        for name, values in expected.items():
            for mine, theirs in zip(actual[name], values, strict=True):
                torch.testing.assert_close(
                    mine,
                    theirs,
                    rtol=rtol,
                    atol=atol,
                    equal_nan=True,
                    msg=f"{name} in layout {layout}",
                )


@pytest.mark.parametrize("name", PRESETS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    extra=st.integers(0, 2),
    seed=st.integers(0, 999),
)
def test_all_layouts_give_the_same(name, scale_of, lengths, extra, seed):
    batch = sequences_of(lengths, seed=seed, scale=scale_of(name))
    assert_same(all_layouts(preset(name), batch, lengths, extra), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", PRESETS)
def test_all_layouts_give_the_same_in_float32_over_long_sequences(name, scale_of):
    """To 1e-6 of the largest entry, where no token is so near an edge that rounding decides."""
    lengths = [700, 1, 333, 64, 65]
    batch = sequences_of(lengths, seed=5, scale=scale_of(name) / 10, dtype=torch.float32)
    results = all_layouts(preset(name), batch, lengths, extra=3)
    expected = results.pop("list")
    for layout, actual in results.items():
        for what in ("per_token", "gradient", "weights"):
            mine, theirs = torch.cat(actual[what]).double(), torch.cat(expected[what]).double()
            wrong = (mine - theirs).abs() > 1e-6 * theirs.abs().max()
            assert wrong.sum() <= 1, (layout, what)


@pytest.mark.parametrize("level", ["token", "prefix", "sequence"])
@pytest.mark.parametrize("edge", ["truncate", "mask"])
def test_mismatch_weights_are_the_same_in_all_layouts(level, edge):
    lengths = [5, 1, 9, 4]
    batch = sequences_of(lengths, seed=1, scale=0.1)
    objective = preset("ctpo", mismatch=Mismatch(level=level, edge=edge, cap=1.3))
    assert_same(all_layouts(objective, batch, lengths), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("ratio", ["cumulative", "cumulative-geometric-mean", "full-sequence"])
def test_literal_gradients_are_the_same_in_all_layouts(ratio):
    lengths = [5, 1, 9, 4]
    batch = sequences_of(lengths, seed=2, scale=0.05)
    objective = Objective(ratio=ratio, window=sqrt(0.05, 0.05), gradient="literal")
    assert_same(all_layouts(objective, batch, lengths), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", PRESETS)
def test_advantages_per_token_are_the_same_in_all_layouts(name, scale_of):
    lengths = [5, 1, 9, 4]
    batch = sequences_of(lengths, seed=3, scale=scale_of(name))
    generator = torch.Generator().manual_seed(3)
    batch["advantages"] = [
        torch.randn(n, generator=generator, dtype=torch.float64) for n in lengths
    ]
    assert_same(all_layouts(preset(name), batch, lengths), rtol=1e-9, atol=1e-12)


def test_an_empty_packed_sequence_is_like_a_row_without_policy_tokens():
    lengths = [5, 0, 9, 0]
    batch = sequences_of(lengths, seed=2, scale=0.05)
    out = preset("ctpo")(**{k: v for k, v in packed(batch, lengths).items() if k in ARGUMENTS})
    assert out.sequences().lengths.tolist()[1::2] == [0, 0]
    rest = {k: v[::2] for k, v in batch.items()}
    other = preset("ctpo")(**{k: v for k, v in packed(rest, [5, 9]).items() if k in ARGUMENTS})
    assert torch.equal(out.per_token, other.per_token)
    for reduction in REDUCTIONS:
        torch.testing.assert_close(out.mean(reduction), other.mean(reduction))
    assert out.statistics.to_columns() == other.statistics.to_columns()
    assert out.statistics.sequences == other.statistics.sequences == 2


ARGUMENTS = ("logprobs", "old_logprobs", "advantages", "mask", "cu_seqlens")


def test_a_plain_running_sum_would_be_wrong_when_packed():
    """The trap: without edges, the second sequence would carry on the first's product."""
    log_r = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    out = Objective(ratio="cumulative", surrogate="plain")(
        log_r,
        torch.zeros(4),
        torch.ones(2),
        torch.ones(4),
        cu_seqlens=torch.tensor([0, 2, 4]),
    )
    assert out.weights.log().tolist() == pytest.approx([0.1, 0.3, 0.3, 0.7])


def test_what_came_before_leaves_no_rounding_in_a_packed_sequence():
    """A running sum of -1e4 would leave errors of 1e-3 in float32, a fiftieth of the window."""
    log_r = torch.cat([torch.full((2000,), -5.0), torch.full((50,), 1e-3)])
    out = Objective(ratio="cumulative", surrogate="plain")(
        log_r,
        torch.zeros(2050),
        torch.ones(2),
        torch.ones(2050),
        cu_seqlens=torch.tensor([0, 2000, 2050]),
    )
    expected = (1e-3 * torch.arange(1, 51)).exp()
    torch.testing.assert_close(out.weights[2000:], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_edges_may_be_of_any_integer_type(dtype):
    batch = packed(sequences_of([3, 4], seed=0, scale=0.1), [3, 4])
    inputs = {name: batch[name] for name in ARGUMENTS}
    expected = preset("ctpo")(**inputs)
    inputs["cu_seqlens"] = inputs["cu_seqlens"].to(dtype)
    assert torch.equal(preset("ctpo")(**inputs).per_token, expected.per_token)


def test_gradients_flow_through_views_of_the_callers_tensors():
    """A list is often slices of one tensor."""
    whole = torch.full((7,), -1.0, dtype=torch.float64, requires_grad=True)
    out = preset("ctpo")(
        list(whole.split([3, 4])),
        [torch.full((n,), -1.01, dtype=torch.float64) for n in (3, 4)],
        torch.tensor([1.0, -1.0]),
        [torch.ones(3), torch.ones(4)],
    )
    out.mean("token-mean").backward()
    assert whole.grad is not None
    assert whole.grad.sign().tolist() == [-1.0] * 3 + [1.0] * 4


def test_calibrate_takes_all_layouts():
    lengths = [40, 3, 55]
    batch = sequences_of(lengths, seed=4, scale=0.05)
    batch["advantages"] = torch.tensor([1.0, -1.0, -0.5])
    names = ("logprobs", "old_logprobs", "advantages", "mask")
    one = calibrate(**{k: batch[k] for k in names})
    two = calibrate(**{k: v for k, v in packed(batch, lengths).items() if k in ARGUMENTS})
    three = calibrate(**{k: padded(batch, 60, "left")[k] for k in names})
    for other in (two, three):
        assert other.tokens == one.tokens
        assert other.window.eps_low == pytest.approx(one.window.eps_low, rel=1e-9)
        assert other.window.eps_high == pytest.approx(one.window.eps_high, rel=1e-9)


def good(tokens=9, sequences=2):
    return {
        "logprobs": torch.zeros(tokens),
        "old_logprobs": torch.zeros(tokens),
        "advantages": torch.ones(sequences),
        "mask": torch.ones(tokens),
    }


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([1, 5, 9], r"cu_seqlens must start at 0 and never fall, got \[1, 5, 9\]"),
        ([0, 9, 5], r"cu_seqlens must start at 0 and never fall, got \[0, 9, 5\]"),
        ([0, 5, 8], "cu_seqlens ends at 8; it must end at the number of tokens, 9"),
        (
            [0, 5, 18],
            "cu_seqlens ends at 18, logprobs has 9 tokens only: this looks like a shard.*"
            "process_group=",
        ),
    ],
)
def test_edges_that_do_not_fit_raise(edges, message):
    preset("ctpo")(**good(), cu_seqlens=torch.tensor([0, 5, 9]))
    with pytest.raises(ValueError, match=message):
        preset("ctpo")(**good(), cu_seqlens=torch.tensor(edges))


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (torch.tensor([0.0, 5.0, 9.0]), r"must be integers \[S\+1\].* of torch.float32"),
        (torch.tensor([[0, 5, 9]]), r"must be integers \[S\+1\].* shape \[1, 3\]"),
        (torch.tensor([0]), r"must be integers \[S\+1\] with S >= 1.* shape \[1\]"),
        (torch.tensor([False, True, True]), r"must be integers"),
        (torch.tensor([0, 5, 9], device="meta"), "cu_seqlens is on meta, logprobs on cpu"),
    ],
)
def test_edges_of_the_wrong_kind_raise(edges, message):
    with pytest.raises(ValueError, match=message):
        preset("ctpo")(**good(), cu_seqlens=edges)


def test_many_edges_are_not_all_printed():
    edges = torch.arange(100).flip(0)
    with pytest.raises(ValueError, match=r"got \[99, 98, 97, 96, 95, 94, 93, 92, '...'\]"):
        preset("ctpo")(**good(99, 99), cu_seqlens=edges)


def test_packed_tokens_without_edges_raise_and_say_what_is_missing():
    with pytest.raises(ValueError, match=r"got shape \[9\]; packed tokens \[N\] need cu_seqlens"):
        preset("ctpo")(**good())


def test_padded_tokens_with_edges_raise():
    inputs: Any = {name: torch.zeros(2, 3) for name in ("logprobs", "old_logprobs", "mask")}
    with pytest.raises(ValueError, match=r"logprobs must be packed, \[N\], got shape \[2, 3\]"):
        preset("ctpo")(**inputs, advantages=torch.ones(2), cu_seqlens=torch.tensor([0, 3, 6]))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "advantages",
            torch.ones(3),
            r"advantages must be \[S\] = \[2\] or \[N\] = \[9\], got \[3\]",
        ),
        ("mask", torch.ones(8), r"mask must have the shape of logprobs, \[9\], got \[8\]"),
        ("logprobs", torch.zeros(0), r"the batch is empty: logprobs has shape \[0\]"),
    ],
)
def test_packed_shapes_that_do_not_fit_raise(name, value, message):
    with pytest.raises(ValueError, match=message):
        preset("ctpo")(**{**good(), name: value}, cu_seqlens=torch.tensor([0, 5, 9]))


def test_as_many_sequences_as_tokens_need_sequences_of_one():
    """[S] = [N] advantages could be meant either way, unless both mean the same."""
    edges = torch.tensor([0, 3, 3, 3])
    with pytest.raises(ValueError, match="per sequence or per token.*drop the empty sequences"):
        preset("ctpo")(**good(3, 3), cu_seqlens=edges)
    out = preset("ctpo")(**good(3, 3), cu_seqlens=torch.tensor([0, 1, 2, 3]))
    assert out.per_token.tolist() == [-1.0] * 3


def listed(lengths=(2, 3)):
    return {
        "logprobs": [torch.zeros(n) for n in lengths],
        "old_logprobs": [torch.zeros(n) for n in lengths],
        "advantages": torch.ones(len(lengths)),
        "mask": [torch.ones(n) for n in lengths],
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logprobs": []}, "the batch is empty: logprobs is an empty list"),
        (
            {"old_logprobs": [torch.zeros(2)]},
            "old_logprobs has 1 tensors, logprobs has 2",
        ),
        (
            {"mask": [torch.ones(2), torch.ones(4)]},
            r"mask\[1\] must have the shape of logprobs\[1\], \[3\], got shape \[4\]",
        ),
        (
            {"old_logprobs": torch.zeros(2, 3)},
            r"old_logprobs must be a list of 2 tensors like logprobs, got shape \[2, 3\]",
        ),
        (
            {"advantages": torch.ones(3)},
            r"advantages must be a list of 2 tensors like logprobs, or \[2\], got shape \[3\]",
        ),
        (
            {"advantages": [torch.ones(2), torch.ones(2)]},
            r"advantages\[1\] must have the shape of logprobs\[1\]",
        ),
        ({"cu_seqlens": torch.tensor([0, 2, 5])}, "cu_seqlens has no effect on a list"),
    ],
)
def test_a_list_that_does_not_fit_raises(change, message):
    preset("ctpo")(**listed())
    with pytest.raises(ValueError, match=message):
        preset("ctpo")(**{**listed(), **change})


@pytest.mark.parametrize("piece", [[0.0, 0.0], torch.zeros(1, 2), 3.0])
def test_a_list_of_something_else_raises(piece):
    with pytest.raises(TypeError, match=r"logprobs\[0\] must be a tensor \[T_i\], got"):
        preset("ctpo")(**{**listed(), "logprobs": [piece, torch.zeros(3)]})


def test_a_list_where_the_others_are_padded_raises():
    inputs: Any = {name: torch.zeros(2, 3) for name in ("logprobs", "old_logprobs")}
    with pytest.raises(TypeError, match="mask must be a torch.Tensor, got list"):
        preset("ctpo")(**inputs, advantages=torch.ones(2), mask=[torch.ones(3)] * 2)


def test_a_distributed_tensor_is_refused():
    """Its prefix sums would run over the local shard only."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        shard = distribute_tensor(torch.zeros(2, 3), mesh, [Shard(1)])
        with pytest.raises(TypeError, match="logprobs is a DTensor, a shard.*process_group="):
            preset("ctpo")(shard, torch.zeros(2, 3), torch.ones(2), torch.ones(2, 3))
    finally:
        dist.destroy_process_group()
