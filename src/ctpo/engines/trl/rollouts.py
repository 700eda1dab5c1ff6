"""The rollouts that a checkpoint is in the middle of, stored with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

Batch = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What decides which micro-batch comes when; a run can be resumed with no other.

    Attributes:
        steps_per_generation: Micro-batches of a batch of rollouts.
        num_iterations: How often each is used.
        gradient_accumulation_steps: Micro-batches of an optimizer step.
        processes: Processes that train.
    """

    steps_per_generation: int
    num_iterations: int
    gradient_accumulation_steps: int
    processes: int

    @property
    def period(self) -> int:
        """Micro-batches from one batch of rollouts to the next."""
        return self.steps_per_generation * self.num_iterations


@dataclass(frozen=True)
class Rollouts:
    """Where a process is among its micro-batches.

    Attributes:
        step: Micro-batches done.
        collected_at: Optimizer steps done when the rollouts were collected.
        batches: The micro-batches of the rollouts in hand; None where new ones are due.
    """

    step: int
    collected_at: int
    batches: list[Batch] | None


def save(directory: str, process: int, plan: Plan, rollouts: Rollouts) -> None:
    """Write a process's rollouts into a checkpoint."""
    content = {"plan": asdict(plan), **vars(rollouts)}
    torch.save(content, _file(directory, process))


def load(directory: str, process: int, plan: Plan, device: torch.device, steps: int) -> Rollouts:
    """Read a process's rollouts from a checkpoint.

    Args:
        directory: The checkpoint.
        process: Number of the process.
        plan: To go on with.
        device: To put them on.
        steps: Optimizer steps that the checkpoint is at.

    Raises:
        ValueError: The run was trained by another plan, or the checkpoint lies inside a batch of
            rollouts and does not hold it; says what would be right.
    """
    file = _file(directory, process)
    if not file.exists():
        step = steps * plan.gradient_accumulation_steps
        if step % plan.period:
            raise ValueError(
                f"{directory} was saved in the middle of a batch of rollouts and does not hold it "
                f"({file.name} is missing, as with save_only_model=True): what follows would be "
                f"trained on other data. Resume from a checkpoint at a multiple of {plan.period} "
                "micro-batches"
            )
        return Rollouts(step, steps, None)
    content = torch.load(file, map_location=device, weights_only=True)
    for name, now in asdict(plan).items():
        was = content["plan"][name]
        if now != was:
            raise ValueError(
                f"{name} is {now}, and was {was} when {directory} was saved: the order of "
                f"micro-batches would be another. Resume with {was}"
            )
    return Rollouts(content["step"], content["collected_at"], content["batches"])


def _file(directory: str, process: int) -> Path:
    return Path(directory) / f"rollouts-{process}.pt"
