"""Any two models, measured on trajectories from files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from ctpo.tir.storage import read_trajectories
from ctpo.training.listening import Listener
from ctpo.training.measuring.gradients import (
    Bench,
    Measurement,
    Sampled,
    less_baseline,
    load_for_gradients,
    mean_rewards,
    trainable,
)
from ctpo.training.models import quiet_libraries


@dataclass(frozen=True)
class FileRequest:
    """Two models and trajectories of the old one.

    Attributes:
        old: π_old: a model directory or a Hub name.
        new: π_θ.
        trajectories: Parquet of π_old's answers with rewards, as runs write them: a file or a
            directory of files. Problems are told apart by their prompts.
        reference: The same of π_θ's answers, for the on-policy gradient; None leaves it out.
        temperature: The answers were sampled at.
        seed: Of projection and bootstrap.
    """

    old: str
    new: str
    trajectories: Path
    reference: Path | None = None
    temperature: float = 1.0
    seed: int = 0


def measure_files(request: FileRequest, listener: Listener) -> Measurement:
    """Measure bias and variance of every estimator between two models, from trajectory files.

    The baseline of an answer is the mean reward of the *other* answers to its problem, which does
    not depend on it, and 0 where there are none; that of a reference is the mean over π_old's.

    Args:
        request: What to measure.
        listener: Is told how far it is.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: A model cannot be loaded, or too few answers have a reward.
    """
    quiet_libraries()
    known: dict[tuple[int, ...], int] = {}
    data = _read(request.trajectories, known, grow=True)
    fresh = None if request.reference is None else _read(request.reference, known, grow=False)
    bench = Bench(len(known), request.temperature, request.seed, listener)
    baseline = mean_rewards(data, len(known))
    counts = Counter(data.prompts)
    advantages = less_baseline(data, baseline)
    # R_i minus the mean of the others is n/(n - 1) times R_i minus the mean of all.
    several = torch.tensor([counts[i] for i in data.prompts], dtype=torch.float64)
    advantages = torch.where(
        several > 1,
        advantages * several / (several - 1).clamp(min=1),
        less_baseline(data, {}),
    )
    model, _ = load_for_gradients(request.old)
    before = bench.logprobs("old log-probs", model, data.trajectories)
    model, _ = load_for_gradients(request.new)
    distance = bench.distance(
        0,
        model,
        data,
        before,
        advantages,
        fresh,
        None if fresh is None else less_baseline(fresh, baseline),
    )
    unknown = data.unknown + (0 if fresh is None else fresh.unknown)
    size = sum(p.numel() for p in trainable(model))
    return Measurement(None, [distance], unknown, size)


def _read(path: Path, known: dict[tuple[int, ...], int], *, grow: bool) -> Sampled:
    """Return the graded answers of a file; prompts that are not known are left out or added."""
    kept, prompts, read = [], [], 0
    for trajectory in read_trajectories(path):
        read += 1
        prompt = tuple(trajectory.prompt_ids)
        if grow:
            known.setdefault(prompt, len(known))
        if trajectory.reward is not None and any(trajectory.mask) and prompt in known:
            kept.append(trajectory)
            prompts.append(known[prompt])
    if len(set(prompts)) < 2:
        raise ValueError(
            f"{path} has graded answers to {len(set(prompts))} problems; at least 2 are needed"
        )
    return Sampled(kept, prompts, read - len(kept))
