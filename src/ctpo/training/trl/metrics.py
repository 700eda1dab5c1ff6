"""One batch's metrics, of TRL's log and our trajectories, by the names that every engine has."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from ctpo.tir import Trajectory

# TRL's names and ours: means over the batch of rollouts or over its updates, but for the gradient
# norm and the learning rate, which are those of its last update.
FROM_TRL = {
    "reward": "reward/mean",
    "reward_std": "reward/std",
    "frac_reward_zero_std": "reward/zero_std_groups",
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "entropy": "entropy",
    "kl": "kl/reference",  # where the loss has such a term
}


def metrics_of(logs: dict[str, float], trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """Return one batch's metrics under our names. Times are not among them: they do not repeat."""
    metrics: dict[str, Any] = {
        ours: logs[theirs] for theirs, ours in FROM_TRL.items() if theirs in logs
    }
    metrics |= {
        name.removeprefix("ctpo/"): value
        for name, value in logs.items()
        if name.startswith("ctpo/")
    }
    # What TRL measured of the generator against the trainer, where that is not one model.
    metrics |= {
        name.replace("sampling/", "sampler/", 1): value
        for name, value in logs.items()
        if name.startswith("sampling/")
    }
    count = len(trajectories)
    graded = [t.reward for t in trajectories if t.reward is not None]
    if len(graded) < count:
        # TRL leaves what could not be graded out of the advantages, but counts it as 0 here.
        metrics["reward/mean"] = statistics.fmean(graded) if graded else None
        metrics["reward/std"] = statistics.stdev(graded) if len(graded) > 1 else None
    results = [result for t in trajectories for result in t.tool_results]
    failed = sum(result.status == "sandbox-failure" for result in results)
    wrong = sum(result.status not in ("success", "sandbox-failure") for result in results)
    gaps = [
        abs(old - sampled)
        for t in trajectories
        if t.old_logprobs is not None
        for old, sampled, policy in zip(t.old_logprobs, t.sampler_logprobs, t.mask, strict=True)
        if policy
    ]
    return metrics | {
        "reward/unknown": sum(t.reward is None for t in trajectories) / count,
        "response/length": sum(sum(t.mask) for t in trajectories) / count,
        "response/answered": sum(t.finish_reason == "answered" for t in trajectories) / count,
        "tool/calls_per_response": len(results) / count,
        "tool/error_rate": wrong / len(results) if results else None,
        "tool/failure_rate": failed / len(results) if results else None,
        "sampler/logprob_gap_max": max(gaps, default=None),
    }
