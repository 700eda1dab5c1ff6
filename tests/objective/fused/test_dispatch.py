"""The fused kernel agrees with the torch path: in Triton's interpreter, and on a GPU where one is.

Every test here that needs the kernel runs on the GPU of this process; without one they run in a
second process, in which Triton interprets its kernels on the CPU.

Log ratios are multiples of 1/1024, so that their sums are exact in whatever order they are added
and no token stands on the other side of a bin or a bound by rounding.
"""

import dataclasses
import importlib.metadata
import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch

from ctpo.objective import (
    LogWindow,
    Mismatch,
    Objective,
    PositionStatistics,
    RatioWindow,
    fixed,
    preset,
    sqrt,
)
from ctpo.objective.fused import dispatch
from ctpo.objective.inputs import prepare
from ctpo.objective.statistics.bins import BINS

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
HAS_TRITON = importlib.util.find_spec("triton") is not None
WITHOUT_TRITON = "triton is not installed (it has wheels for Linux only)"

runs_kernel = pytest.mark.skipif(
    not (HAS_TRITON and (INTERPRETED or torch.cuda.is_available())),
    reason="no GPU; runs under test_everything_here_in_the_interpreter"
    if HAS_TRITON
    else WITHOUT_TRITON,
)

# The kernel leaves infinities out that stand at masked places only after it computed with them.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")

OBJECTIVES = {
    "ctpo": preset("ctpo", eps_low=0.125, eps_high=0.25, dual_clip=0.5),
    "ctpo-printed": preset("ctpo-printed", eps_low=0.1, eps_high=0.2),
    "grpo": preset("grpo"),
    "token, dual clip": Objective(ratio="token", window=fixed(0.1, 0.2, dual_clip=1.3)),
    "pnpo": preset("pnpo", eps_low=0.05, eps_high=0.1),
    "power 0.3, open above": Objective(
        ratio="cumulative",
        window=LogWindow(eps_low=0.1, eps_high=math.inf, power=0.3, dual_clip=0.31),
    ),
    "fixed log window": Objective(
        ratio="cumulative-geometric-mean", window=LogWindow(eps_low=0.0, eps_high=0.05, power=0)
    ),
    "plain": Objective(ratio="cumulative", surrogate="plain"),
    "open below": Objective(ratio="token", window=RatioWindow(clip_low=1, clip_high=0.1)),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Many block boundaries in little time: the interpreter takes a millisecond per token."""
    if INTERPRETED:
        monkeypatch.setattr(dispatch, "_MAX_BLOCK", 32)
    monkeypatch.setattr(dispatch, "_chunks", lambda *_: 1)


def on_a_grid(*shape, seed, scale=0.15, step=1024):
    generator = torch.Generator().manual_seed(seed)
    old = (-torch.rand(*shape, generator=generator) * 4 * step).round() / step
    log_ratio = (torch.randn(*shape, generator=generator) * scale * step).round() / step
    mask = torch.rand(*shape, generator=generator) >= 0.15
    return old + log_ratio, old, mask


def padded_batch(seed=0, columns=80):
    """Holes, padding on either side, an empty row; junk where masked."""
    logprobs, old, mask = on_a_grid(4, columns, seed=seed)
    mask[0, :5], mask[0, -9:], mask[1, :41], mask[2] = False, False, False, False
    mask[3] = True
    junk = torch.tensor([math.nan, math.inf, -math.inf, 1e30]).repeat(4, columns)[:, :columns]
    logprobs, old = torch.where(mask, logprobs, junk), torch.where(mask, old, junk)
    return logprobs, old, torch.tensor([1.5, -0.75, 2.0, -1.0]), mask


def run(objective, logprobs, old, advantages, mask, cu_seqlens=None, **options):
    """Return what the kernel gives, on the CPU."""
    device = torch.device(DEVICE)
    batch = prepare(logprobs, old, advantages, mask, cu_seqlens=cu_seqlens)
    assert dispatch.covers(objective, batch)

    def there(tensor):
        # Keeps strides, on which the kernel depends.
        return None if tensor is None else tensor.detach().to(device)

    result = dispatch.forward(
        objective.ratio,
        objective.window,
        there(logprobs),
        there(old),
        there(batch.advantages if cu_seqlens is None else advantages),
        there(batch.layout.mask),
        there(cu_seqlens),
        **options,
    )
    statistics = result.statistics and PositionStatistics(
        **{
            field.name: getattr(result.statistics, field.name).cpu()
            for field in dataclasses.fields(PositionStatistics)
        }
    )
    value, slope, log_ratio, log_weight = (tensor.cpu() for tensor in result[:4])
    return dispatch.Fused(value, slope, log_ratio, log_weight, statistics)


def assert_close(ours, reference, rounding=3e-6):
    torch.testing.assert_close(ours, reference, rtol=rounding, atol=1e-7)


def assert_same_statistics(ours, reference):
    for field in dataclasses.fields(PositionStatistics):
        there, here = getattr(reference, field.name), getattr(ours, field.name)
        assert (here.dtype, here.shape) == (there.dtype, there.shape), field.name
        if there.dtype == torch.int64:
            assert torch.equal(here, there), field.name
        else:
            torch.testing.assert_close(here, there, rtol=3e-6, atol=1e-6, msg=field.name)


def assert_agrees(objective, logprobs, old, advantages, mask, cu_seqlens=None, *, statistics=True):
    leaf = logprobs.detach().clone().requires_grad_()
    reference = objective(leaf, old, advantages, mask, cu_seqlens=cu_seqlens)
    (slope,) = torch.autograd.grad(reference.per_token.sum(), leaf)
    ours = run(objective, logprobs, old, advantages, mask, cu_seqlens, statistics=statistics)
    assert_close(ours.value, reference.per_token.detach())
    # A gradient is rounded to the dtype of what it is the gradient of.
    rounding = {torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}[slope.dtype]
    assert_close(ours.slope, slope.float(), rounding)
    assert torch.equal(ours.slope == 0, slope == 0)
    policy = reference.mask
    assert torch.equal(ours.log_ratio, reference._log_ratio)
    assert_close(ours.log_weight[policy], reference._log_weight.expand_as(policy)[policy])
    if statistics:
        assert_same_statistics(ours.statistics, reference.statistics)
    else:
        assert ours.statistics is None
    return ours


def _version(package):
    return tuple(int(part) for part in importlib.metadata.version(package).split(".")[:2])


@pytest.mark.slow
def test_everything_here_in_the_interpreter():
    if INTERPRETED:
        pytest.skip("this is the interpreter")
    if not HAS_TRITON:
        pytest.skip(WITHOUT_TRITON)
    if _version("triton") < (3, 7) and _version("numpy") >= (2, 4):
        pytest.skip("Triton's interpreter goes with NumPy 2.4 from Triton 3.7 on")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", __file__, "-p", "no:cacheprovider", "-rs"],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no GPU" not in done.stdout, done.stdout


@runs_kernel
@pytest.mark.parametrize("name", OBJECTIVES)
def test_padded_tokens(name):
    with_statistics = name in ("ctpo", "grpo", "pnpo", "plain")
    assert_agrees(OBJECTIVES[name], *padded_batch(), statistics=with_statistics)


@runs_kernel
def test_packed_tokens_of_ragged_lengths_with_advantages_per_token():
    lengths = [0, 37, 1, 0, 64, 33, 2]
    logprobs, old, mask = on_a_grid(sum(lengths), seed=1)
    mask[36:38] = torch.tensor([False, True])
    logprobs[~mask] = math.nan
    advantages = on_a_grid(sum(lengths), seed=2, scale=1.0)[0] + 2
    advantages[~mask] = math.nan
    edges = torch.tensor([0, *lengths]).cumsum(0)
    assert_agrees(OBJECTIVES["ctpo"], logprobs, old, advantages, mask, edges)


@runs_kernel
def test_packed_tokens_with_advantages_per_sequence():
    logprobs, old, mask = on_a_grid(90, seed=3)
    edges = torch.tensor([0, 50, 50, 90], dtype=torch.int32)
    assert_agrees(OBJECTIVES["pnpo"], logprobs, old, torch.tensor([1.0, 2.0, -1.0]), mask, edges)


@runs_kernel
def test_tokens_behind_the_last_packed_sequence_are_nobodys():
    logprobs, old, mask = on_a_grid(70, seed=4)
    edges, advantages = torch.tensor([0, 20, 41]), torch.tensor([1.0, -1.0])
    whole = run(OBJECTIVES["ctpo"], logprobs[:41], old[:41], advantages, mask[:41], edges)
    device = torch.device(DEVICE)
    ours = dispatch.forward(
        OBJECTIVES["ctpo"].ratio,
        OBJECTIVES["ctpo"].window,
        *(x.to(device) for x in (logprobs, old, advantages, mask, edges)),
    )
    for here, there in zip(ours[:3], whole[:3], strict=True):
        assert torch.equal(here.cpu(), torch.cat([there, torch.zeros(29)]))
    assert ours.statistics is not None
    assert ours.statistics.tokens.sum() == mask[:41].sum()


@runs_kernel
def test_positions_up_to_the_coarse_bins():
    logprobs, old, mask = on_a_grid(1, 250, seed=5, scale=0.05)
    advantages = on_a_grid(1, 250, seed=13, scale=1.0)[0] + 2
    ours = assert_agrees(OBJECTIVES["ctpo"], logprobs, old, advantages, mask)
    late = ours.statistics.positive_tokens[64:], ours.statistics.negative_tokens[64:]
    assert all(counts.max() > 3 for counts in late)
    assert sum(late).sum() == mask.sum() - 64


@runs_kernel
def test_no_weight_overflows():
    log_ratio = torch.tensor([[100.0, -300.0, 60.0], [39.0, 2.0, -0.5]])
    ours = assert_agrees(
        OBJECTIVES["plain"],
        log_ratio,
        torch.zeros(2, 3),
        torch.tensor([1.0, -1.0]),
        torch.ones(2, 3, dtype=torch.bool),
        statistics=False,
    )
    assert ours.value.isfinite().all()
    assert_close(ours.value[0, 0], torch.tensor(-math.exp(40)))


@runs_kernel
@pytest.mark.parametrize("packed", [False, True])
def test_splitting_sequences_changes_nothing(packed, monkeypatch):
    """Into three: chunks of one block each, and beyond the end of short ones."""
    monkeypatch.setattr(dispatch, "_chunks", lambda *_: 3)
    logprobs, old, advantages, mask = padded_batch(seed=6)
    if not packed:
        assert_agrees(OBJECTIVES["ctpo"], logprobs, old, advantages, mask)
    else:
        edges = torch.tensor([0, 10, 150, 150, 180])
        logprobs, old, mask = (tensor.flatten()[-180:] for tensor in (logprobs, old, mask))
        assert_agrees(OBJECTIVES["ctpo"], logprobs, old, advantages, mask, edges)


@runs_kernel
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_are_computed_in_float32(dtype):
    logprobs, old, mask = on_a_grid(2, 40, seed=7, step=32)
    advantages = torch.tensor([1.0, -1.0], dtype=dtype)
    ours = assert_agrees(OBJECTIVES["ctpo"], logprobs.to(dtype), old.to(dtype), advantages, mask)
    assert ours.value.dtype == ours.slope.dtype == torch.float32


@runs_kernel
def test_strides_of_the_inputs_are_followed():
    logprobs, old, mask = on_a_grid(40, 3, seed=8)
    advantages = on_a_grid(3, 80, seed=9)[0][:, ::2]
    assert_agrees(OBJECTIVES["grpo"], logprobs.T, old.T, advantages, mask.T)


@runs_kernel
def test_a_bound_is_inside():
    """log ρ_t is exactly on the bounds at t = 1 and t = 4, and beyond at t = 5."""
    window = sqrt(0.125, 0.25, dual_clip=0.5)
    log_rho = torch.tensor([[0.25, 0.3125, 0.3125, 0.5, 0.75], [-0.125, 0, 0, -0.25, -0.375]])
    log_ratio = log_rho.diff(dim=1, prepend=torch.zeros(2, 1))
    ours = run(
        Objective(ratio="cumulative", window=window),
        log_ratio,
        torch.zeros(2, 5),
        torch.tensor([1.0, -1.0]),
        torch.ones(2, 5, dtype=torch.bool),
    )
    assert (ours.slope == 0).tolist() == [[False, False, False, False, True]] + [
        [False, False, False, False, True]
    ]


@runs_kernel
@pytest.mark.parametrize("bad", [math.nan, math.copysign(math.nan, -1), math.inf])
def test_what_is_not_finite_at_a_policy_token_shows_and_stays_in_its_sequence(bad):
    logprobs, old, mask = on_a_grid(2, 40, seed=11)
    mask[0, 10] = True
    logprobs[0, 10] = bad
    ours = run(OBJECTIVES["ctpo-printed"], logprobs, old, torch.tensor([-1.0, -1.0]), mask)
    later = mask[0, 10:]
    if math.isnan(bad):
        assert ours.value[0, 10:][later].isnan().all()
        reached = slice(int(mask[0, :10].sum()), int(mask[0].sum()))
        for name in ("log_rho_max", "log_rho_min", "log_rho_sum"):
            assert getattr(ours.statistics, name)[reached].isnan().all(), name
    else:
        assert (ours.log_weight[0, 10:][later] == math.inf).all()
        assert ours.statistics.log_rho_max.max() == math.inf
    assert ours.value[0, :10].isfinite().all() and ours.value[1].isfinite().all()


@runs_kernel
def test_a_batch_without_policy_tokens_has_no_statistics():
    tokens = torch.full((2, 40), math.nan)
    ours = run(
        OBJECTIVES["ctpo"], tokens, tokens, torch.ones(2), torch.zeros(2, 40, dtype=torch.bool)
    )
    assert_same_statistics(ours.statistics, PositionStatistics.zeros())
    assert not ours.value.any() and not ours.slope.any()


def test_it_is_taken_only_where_it_is_asked_for_and_can_compute_it(monkeypatch):
    batch = padded_batch(seed=12)
    monkeypatch.setattr(dispatch, "supports", lambda *_: True)
    monkeypatch.setattr(dispatch, "forward", mock.Mock(side_effect=InterruptedError))
    preset("ctpo")(*batch)
    with pytest.raises(InterruptedError):
        preset("ctpo")(*batch, fused=True)
    monkeypatch.undo()
    with pytest.raises(
        ValueError, match="fused=True cannot compute this: it needs tokens on a GPU"
    ):
        preset("ctpo")(*batch, fused=True)


def test_what_is_covered():
    def covered(objective, dtype=torch.float32, **more):
        tokens = torch.zeros(2, 3, dtype=dtype)
        mask = torch.ones(2, 3, dtype=torch.bool)
        batch = prepare(tokens, tokens, torch.ones(2), mask, **more)
        assert not dispatch.supports(objective, batch)  # this is a CPU
        return dispatch.covers(objective, batch)

    for objective in OBJECTIVES.values():
        assert covered(objective)
        assert covered(objective, dtype=torch.bfloat16)
        assert not covered(objective, dtype=torch.float64)
    for name in ("full-sequence", "gspo", "cispo", "sapo", "topr", "vespo", "gmpo", "cppo"):
        assert not covered(preset(name))
    for name in ("minpro", "ctpo-drift-free", "ctpo-exact-kl"):
        assert not covered(preset(name))  # type: ignore[call-overload]
    weighted = dataclasses.replace(preset("ctpo"), mismatch=Mismatch(level="prefix"))
    assert not covered(weighted)


def test_bins_of_the_kernel_are_those_of_the_statistics():
    """Every field is in a row of the record, and its rows are as long as there are bins."""
    if not HAS_TRITON:
        pytest.skip(WITHOUT_TRITON)
    from ctpo.objective.fused import kernel_statistics as layout

    names = {*layout.SUMS, *layout.EXTREMES, *layout.COUNTS, "log_rho_sketch", "log_r_sketch"}
    assert names == {field.name for field in dataclasses.fields(PositionStatistics)}
    zeros = PositionStatistics.zeros()
    for name in names:
        shape = () if name in layout.BY_SEQUENCE else (BINS,)
        assert name.endswith("_sketch") or getattr(zeros, name).shape == shape


@pytest.mark.slow
@pytest.mark.parametrize("split", [0, 8])
def test_the_kernels_compile_for_a_gpu_without_one(split, tmp_path, monkeypatch):
    """The interpreter knows no types, layouts or registers; the compiler does."""
    if INTERPRETED or not HAS_TRITON:
        pytest.skip("this is the interpreter" if INTERPRETED else WITHOUT_TRITON)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ctpo.objective.fused import kernel_statistics, kernels

    types = dict.fromkeys(("cu_seqlens", "chunk_lengths"), "*i32")
    types |= dict.fromkeys(("records", "integers"), "*i64")
    types |= dict.fromkeys(("records_as_floats", "floats", "chunk_sums"), "*fp64")
    types |= dict.fromkeys(("low", "high", "dual", "power"), "fp32") | {"mask": "*u8"}
    types |= dict.fromkeys(("value", "slope", "log_ratio", "log_weight", "advantages"), "*fp32")
    types |= dict.fromkeys(("logprobs", "old_logprobs"), "*bf16" if split else "*fp32")
    constants = {
        "RATIO": "mean" if split else "cumulative",
        "SCALE": "power" if split else "sqrt",
        **dict.fromkeys(("PACKED", "PER_TOKEN"), bool(split)),
        **{"CLIPPED": True, "STATISTICS": True, "SPLIT": split, "COPIES": 64},
        **{"BLOCK": 128, "STAGES": 3},
        # Triton makes constants of integers that are 1.
        **({} if split else dict.fromkeys(("sequences", "columns", "chunks"), 1)),
        **dict.fromkeys(("logprobs_step", "old_step", "mask_step"), 1),
    }
    for kernel in (kernels.forward, kernels.chunk_totals, kernel_statistics.merge):
        given = {name: constants[name] for name in kernel.arg_names if name in constants}
        signature = {
            name: "constexpr" if name in given else types.get(name, "i32")
            for name in kernel.arg_names
        }
        source = ASTSource(fn=kernel, signature=signature, constexprs=given)
        compiled = triton.compile(
            source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1}
        )
        assert "cubin" in compiled.asm


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["ctpo", "grpo", "pnpo"])
def test_on_a_gpu_the_objective_can_be_fused_and_nothing_waits_for_the_host(name, monkeypatch):
    batch = [tensor.cuda() for tensor in padded_batch(seed=12)]
    batch[0].requires_grad_()
    objective = OBJECTIVES[name]
    spy = mock.Mock(wraps=dispatch.forward)
    monkeypatch.setattr(dispatch, "forward", spy)
    objective(*batch, fused=True).mean("token-mean").backward()  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = objective(*batch, fused=True)
        out.mean("token-mean").backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert spy.call_count == 2
    reference = objective(*(tensor.detach().cpu() for tensor in batch))
    here, there = (torch.as_tensor(result.per_token).cpu() for result in (out, reference))
    torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-6)
