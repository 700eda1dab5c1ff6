"""The fused forward on a GPU: bytes per second beside a copy on the device, at 4M tokens.

Nothing was measured on a GPU yet: no figure of this script stands anywhere, and the goal, 60 % of
the copy's bandwidth, is untested.

A token costs 25 bytes: 9 are read (two log-probs, the mask) and 16 written (loss, slope, log r,
log w). The copy moves as many, half in and half out. Both are captured as CUDA graphs, so that
Python's launches, which take longer than the kernels, stay out of it; they take turns and are
compared by their medians. What a call costs with its launches, forward and backward, stands in the
second table, fused beside the torch path.

    python benchmarks/objective_gpu.py [--rounds 50]
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
from collections.abc import Callable
from unittest import mock

import torch

from ctpo.objective import preset
from ctpo.objective.fused import dispatch

TOKENS = 2**22
SHAPES = [(2048, 2048), (512, 8192), (64, 65536)]
BYTES_PER_TOKEN = 25


def batch(sequences: int, columns: int, packed: bool, device: str = "cuda"):
    """Return logprobs, old_logprobs, advantages, mask and, if packed, edges of ragged sequences."""
    generator = torch.Generator().manual_seed(0)
    shape = (sequences * columns,) if packed else (sequences, columns)
    old = -torch.rand(shape, generator=generator)
    logprobs = old + 0.03 * torch.randn(shape, generator=generator)
    mask = torch.rand(shape, generator=generator) > 0.1
    advantages = torch.randn(sequences, generator=generator)
    inputs = [tensor.to(device) for tensor in (logprobs, old, advantages, mask)]
    edges = None
    if packed:
        cuts = torch.randint(0, sequences * columns + 1, (sequences - 1,), generator=generator)
        ends = torch.tensor([0, sequences * columns])
        edges = torch.cat([cuts, ends]).sort().values.to(device)
    return inputs, edges


def forward(inputs, edges, with_statistics: bool) -> Callable[[], object]:
    objective = preset("ctpo")
    logprobs, old, advantages, mask = inputs
    if edges is None:
        advantages = advantages[:, None]

    def step() -> object:
        return dispatch.forward(
            objective.ratio,
            objective.window,
            logprobs,
            old,
            advantages,
            mask,
            edges,
            statistics=with_statistics,
        )

    return step


def copy(tokens: int, device: str = "cuda") -> Callable[[], object]:
    source = torch.zeros(tokens * BYTES_PER_TOKEN // 2, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def whole_call(inputs, edges, with_statistics: bool, torch_path: bool) -> Callable[[], object]:
    """Return a call of the objective with its backward."""
    objective = preset("ctpo")
    leaf = inputs[0].clone().requires_grad_()

    def step() -> None:
        leaf.grad = None
        out = objective(leaf, *inputs[1:], cu_seqlens=edges, statistics=with_statistics)
        out.mean("token-mean").backward()

    def step_without() -> None:
        with mock.patch.object(dispatch, "supports", return_value=False):
            step()

    return step_without if torch_path else step


def captured(step: Callable[[], object]) -> Callable[[], object]:
    """Return a replay of the step's kernels."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def medians(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return microseconds on the device's clock."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 5):
        for name, step in steps.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda.synchronize()
            start.record()
            step()
            end.record()
            torch.cuda.synchronize()
            if turn >= 5:
                times[name].append(1000 * start.elapsed_time(end))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    rounds = parser.parse_args().rounds
    if not torch.cuda.is_available():
        print("no GPU here: nothing measured")
        return
    if importlib.util.find_spec("triton") is None:
        print("triton is not installed: nothing measured")
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, medians of {rounds} rounds")
    cases = [(rows, columns, False) for rows, columns in SHAPES] + [(*SHAPES[0], True)]
    table = {}
    for rows, columns, packed in cases:
        inputs, edges = batch(rows, columns, packed)
        table[rows, columns, packed] = inputs, edges

    print(f"\nforward, {TOKENS} tokens, kernels only")
    header = ("tokens", "statistics", "microseconds", "GB/s", "copy GB/s", "share")
    print("{:>24} {:>10} {:>13} {:>8} {:>10} {:>6}".format(*header))
    for (rows, columns, packed), (inputs, edges) in table.items():
        for collect in (False, True):
            steps = {
                "fused": captured(forward(inputs, edges, collect)),
                "copy": captured(copy(TOKENS)),
            }
            times = medians(steps, rounds)
            speed = {name: TOKENS * BYTES_PER_TOKEN / us / 1000 for name, us in times.items()}
            name = f"{'packed ' if packed else ''}{rows} x {columns}"
            print(
                f"{name:>24} {'all' if collect else 'none':>10} {times['fused']:13.1f} "
                f"{speed['fused']:8.0f} {speed['copy']:10.0f} {speed['fused'] / speed['copy']:6.2f}"
            )

    print("\nforward and backward, all statistics, as called")
    print("{:>24} {:>13} {:>13} {:>6}".format("tokens", "fused, us", "torch, us", "ratio"))
    for (rows, columns, packed), (inputs, edges) in table.items():
        steps = {
            "fused": whole_call(inputs, edges, True, torch_path=False),
            "torch": whole_call(inputs, edges, True, torch_path=True),
        }
        times = medians(steps, rounds)
        name = f"{'packed ' if packed else ''}{rows} x {columns}"
        print(
            f"{name:>24} {times['fused']:13.1f} {times['torch']:13.1f} "
            f"{times['fused'] / times['torch']:6.2f}"
        )


if __name__ == "__main__":
    main()
