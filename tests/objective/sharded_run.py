"""A program: every method on sequences cut over ranks, each compared with the whole.

`python sharded_run.py FOLDER SCALES WORLD...` runs as many processes over gloo, for each number
given. Every process writes what it has compared to FOLDER as JSON, and ends with an error at the
first difference. `SCALES` is JSON: the spread of log r by preset.
"""

import datetime
import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ctpo.objective import (
    PRESETS,
    REDUCTIONS,
    Mismatch,
    Objective,
    PositionStatistics,
    preset,
    sqrt,
)

COLUMNS, EDGES = 12, [0, 5, 6, 20, 20, 31, 36]


def batch(shape, sequences, seed, scale):
    generator = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    old = -normal(*shape).abs()
    mask = torch.rand(*shape, generator=generator) >= 0.3
    if len(shape) == 2:
        mask[1] = False
        mask[2, : COLUMNS // 2] = False  # nothing of it on the first rank
    return {
        "logprobs": old + scale * normal(*shape),
        "old_logprobs": old,
        "advantages": normal(sequences),
        "mask": mask,
        "rollout_logprobs": old + 0.1 * normal(*shape),
    }, normal(*shape)


def run(objective, inputs, upstream, **layout):
    leaf = inputs["logprobs"].clone().requires_grad_()
    arguments = {**inputs, **layout, "logprobs": leaf}
    if objective.mismatch is None:
        del arguments["rollout_logprobs"]
    out = objective(**arguments)
    means = {name: out.mean(name) for name in REDUCTIONS}
    slopes = [torch.autograd.grad(x, leaf, retain_graph=True)[0] for x in means.values()]
    # Backward of a literal gradient speaks with the other ranks: once each, in the same order.
    slopes.append(torch.autograd.grad((out.per_token * upstream).sum(), leaf)[0])
    tokens = {"per_token": out.per_token.detach(), "weights": out.weights}
    tokens |= {f"slope {i}": x for i, x in enumerate(slopes)}
    losses = {name: x.detach() for name, x in means.items()}
    return tokens, losses, out.sequences(), out.statistics


def close(actual, expected, what):
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12, msg=f"{what} differs")


def compare(label, objective, inputs, upstream, **layout):
    """Compare the local part with its slice of the whole, which every rank computes for itself.

    Returns what is to be added up over ranks, and what it must add up to.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    along = 1 if inputs["logprobs"].ndim == 2 else 0
    width = inputs["logprobs"].shape[along] // world

    def local(x):
        return x.narrow(along, rank * width, width) if x.shape == inputs["mask"].shape else x

    tokens, losses, sequences, statistics = run(objective, inputs, upstream, **layout)
    pieces = {name: local(x) for name, x in inputs.items()}
    mine = run(objective, pieces, local(upstream), process_group=dist.group.WORLD, **layout)
    for name, x in tokens.items():
        close(mine[0][name], local(x), f"{label} {name}")
    for name, x, y in zip(sequences._fields, mine[2], sequences, strict=True):
        close(x, y, f"{label} sequences {name}")
    return (mine[1], mine[3]), (losses, statistics)


def compare_totals(parts, wholes):
    gathered: list = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, parts)
    for label, (losses, statistics) in wholes.items():
        for name, x in losses.items():
            close(sum(part[label][0][name] for part in gathered), x, f"{label} {name}")
        merged = sum((part[label][1] for part in gathered), PositionStatistics.zeros())
        for name, x in vars(statistics).items():
            close(getattr(merged, name), x, f"{label} statistics {name}")


def refusals():
    """Messages of what must raise: edges of the local piece only, and lists."""
    inputs, _ = batch((EDGES[-1],), 1, 0, 0.1)
    size = EDGES[-1] // dist.get_world_size()
    pieces = [inputs[name][:size] for name in ("logprobs", "old_logprobs", "mask")]
    local: Any = (pieces[0], pieces[1], torch.ones(2), pieces[2])
    lists: Any = ([torch.zeros(2)], [torch.zeros(2)], torch.ones(1), [torch.ones(2)])
    edges: Any = {"cu_seqlens": torch.tensor([0, 3, size])}
    messages = []
    for arguments, extra in ((local, edges), (lists, {})):
        try:
            preset("ctpo")(*arguments, **extra, process_group=dist.group.WORLD)
        except ValueError as error:
            messages.append(str(error))
        else:
            messages.append("did not raise")
    return messages


def main(rank, world, folder, scales):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(str(Path(folder) / f"store{world}"), world),
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=300),
    )
    objectives = {name: (preset(name), scales[name]) for name in PRESETS}  # type: ignore[call-overload]
    for level in ("token", "prefix", "sequence"):
        mismatch = Mismatch(level=level, cap=1.1, edge="mask")
        objectives[f"mismatch {level}"] = (preset("ctpo", mismatch=mismatch), 0.05)
    for ratio in ("cumulative", "cumulative-geometric-mean", "full-sequence"):
        objective = Objective(ratio=ratio, window=sqrt(0.05, 0.05), gradient="literal")
        objectives[f"literal {ratio}"] = (objective, 0.05)
    results = {}
    for seed, (label, (objective, scale)) in enumerate(objectives.items()):
        inputs, upstream = batch((4, COLUMNS), 4, seed, scale)
        results[label, "padded"] = compare(label, objective, inputs, upstream)
        inputs, upstream = batch((EDGES[-1],), len(EDGES) - 1, seed, scale)
        results[label, "packed"] = compare(
            label, objective, inputs, upstream, cu_seqlens=torch.tensor(EDGES)
        )
    compare_totals(
        {label: part for label, (part, _) in results.items()},
        {label: whole for label, (_, whole) in results.items()},
    )
    said = {"compared": list(objectives), "refused": refusals()}
    (Path(folder) / f"{world}-{rank}.json").write_text(json.dumps(said))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    folder, scales = sys.argv[1], json.loads(sys.argv[2])
    # Forked where possible, so that torch is imported once.
    context: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    for world in map(int, sys.argv[3:]):
        ranks = [
            context.Process(target=main, args=(rank, world, folder, scales))
            for rank in range(world)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join()
        if any(process.exitcode for process in ranks):
            sys.exit(f"of {world} processes, some failed")
