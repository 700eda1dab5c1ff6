"""The objective against verl's losses: forward and backward, one thread, float32.

Both sides are given the same batch, take turns, and are compared by the medians of their processor
time, which a busy machine stretches less than the clock's; read the ratios, not the milliseconds.
verl computes its few metrics inside its losses, ours says which statistics it collected. Masks come
as training has them, without holes and with a tool's output in every row.

    python benchmarks/objective.py [--rounds 100]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from ctpo.objective import preset

SIZES = [(1, 8192), (8, 8192), (64, 2048)]


def batch(rows: int, columns: int, holes: bool):
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand(rows, columns, generator=generator)
    logprobs = old + 0.03 * torch.randn(rows, columns, generator=generator)
    lengths = torch.randint(columns // 2, columns + 1, (rows, 1), generator=generator)
    mask = torch.arange(columns) < lengths
    if holes:
        mask[:, columns // 4 : columns // 4 + columns // 16] = False
    advantages = torch.randn(rows, generator=generator)
    return logprobs.requires_grad_(), old, advantages, mask


def ours(name: str, statistics: bool, inputs) -> Callable[[], None]:
    objective = preset(name)
    logprobs = inputs[0]

    def step() -> None:
        logprobs.grad = None
        out = objective(*inputs, statistics=statistics)
        out.mean("seq-mean-token-mean").backward()

    return step


def verls(name: str, inputs) -> Callable[[], None]:
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.workers.config import ActorConfig

    config = ActorConfig(
        strategy="fsdp",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        clip_ratio_low=0.2,
        clip_ratio_high=0.28,
        loss_agg_mode="seq-mean-token-mean",
    )
    loss = get_policy_loss_fn(name)
    logprobs, old, advantages, mask = inputs
    per_token, response_mask = advantages[:, None].expand_as(old).contiguous(), mask.float()

    def step() -> None:
        logprobs.grad = None
        value, _ = loss(
            old_log_prob=old,
            log_prob=logprobs,
            advantages=per_token,
            response_mask=response_mask,
            loss_agg_mode="seq-mean-token-mean",
            config=config,
        )
        value.backward()

    return step


def peak_floats(step: Callable[[], None], tokens: int) -> float:
    """Most memory in use at once beyond what there was before, in float32 per token."""
    with torch.profiler.profile(profile_memory=True) as profile:
        step()
    now = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak / 4 / tokens


def medians(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 5):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if turn >= 5:
                seconds[name].append(time.process_time() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, medians of {rounds} rounds, CPU-milliseconds")
    for holes in (False, True):
        print(f"\nmask {'with a tool output in every row' if holes else 'without holes'}")
        header = ("tokens", "gspo", "vanilla", "ctpo", "ctpo + statistics", "/gspo", "/vanilla")
        print("{:>12} {:>10} {:>10} {:>10} {:>18} {:>8} {:>9}".format(*header))
        for rows, columns in SIZES:
            inputs = batch(rows, columns, holes)
            steps = {
                "gspo": verls("gspo", inputs),
                "vanilla": verls("vanilla", inputs),
                "plain": ours("ctpo", False, inputs),
                "all": ours("ctpo", True, inputs),
            }
            ms = {name: 1000 * value for name, value in medians(steps, rounds).items()}
            print(
                f"{f'[{rows}, {columns}]':>12} {ms['gspo']:10.3f} {ms['vanilla']:10.3f} "
                f"{ms['plain']:10.3f} {ms['all']:18.3f} {ms['plain'] / ms['gspo']:8.2f} "
                f"{ms['all'] / ms['vanilla']:9.2f}"
            )
    print("\npeak memory, float32 per token, of the inputs' own not counted")
    rows, columns = SIZES[-1]
    inputs = batch(rows, columns, holes=False)
    for name, step in (
        ("gspo", verls("gspo", inputs)),
        ("vanilla", verls("vanilla", inputs)),
        ("ctpo", ours("ctpo", False, inputs)),
        ("ctpo + statistics", ours("ctpo", True, inputs)),
    ):
        step()
        print(f"{name:>20} {peak_floats(step, rows * columns):6.1f}")


if __name__ == "__main__":
    main()
