"""What the trainer adds to a batch of rollouts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ctpo.engines.trl.micro_batches import Batch


@dataclass(frozen=True)
class RolloutScores:
    """What the trainer adds to a batch of rollouts, in the order they were collected.

    Attributes:
        advantages: One per response.
        old_logprobs: Per response, the trainer's log-probabilities before the first update, one per
            completion token, and none for a response masked out as a whole. None where every update
            is on-policy, so that no old log-probabilities are needed.
    """

    advantages: list[float]
    old_logprobs: list[list[float]] | None


def scores_of(batches: Iterable[Batch]) -> RolloutScores:
    """Return advantages and old log-probabilities in the order the rollouts were collected.

    Args:
        batches: The micro-batches of a batch of rollouts, in any order.
    """
    rows: dict[int, tuple[float, list[float] | None]] = {}
    for batch in batches:
        old = batch["old_per_token_logps"].tolist() if "old_per_token_logps" in batch else None
        lengths = batch["completion_mask"].sum(1).tolist()
        for i, (row, advantage) in enumerate(
            zip(batch["row"].tolist(), batch["advantages"].tolist(), strict=True)
        ):
            rows[row] = (advantage, None if old is None else old[i][: lengths[i]])
    scores = [rows[row] for row in sorted(rows)]
    old_logprobs = [old for _, old in scores if old is not None]
    return RolloutScores([a for a, _ in scores], old_logprobs or None)
