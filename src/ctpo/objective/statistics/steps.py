"""Statistics of a training step: merged over its ranks, and its first update judged."""

from __future__ import annotations

import functools
import logging
import math
import operator
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import torch.distributed as dist

from ctpo.objective.statistics.positions import PositionStatistics

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

logger = logging.getLogger(__name__)


def over_ranks(
    statistics: Sequence[PositionStatistics], group: ProcessGroup | None
) -> list[PositionStatistics]:
    """Return the statistics of all ranks of a group together, on the CPU.

    Args:
        statistics: Of this rank; all ranks hand over equally many.
        group: The ranks among which the batch is divided; None for this one alone. Ranks that cut
            the same sequences among them (Ulysses, tensor parallelism) are in different groups, so
            that no token is counted twice.
    """
    local = [
        PositionStatistics(**{f.name: getattr(one, f.name).cpu() for f in fields(one)})
        for one in statistics
    ]
    if group is None:
        return local
    gathered: list[list[PositionStatistics]] = [[]] * dist.get_world_size(group)
    dist.all_gather_object(gathered, local, group=group)
    return [functools.reduce(operator.add, parts) for parts in zip(*gathered, strict=True)]


def on_policy_metrics(first: PositionStatistics) -> dict[str, float]:
    """Return what a step's first update says of its log-probs, and warn where they do not match.

    Args:
        first: Of the step's first update, from before the weights moved, over all ranks.

    Returns:
        `on_policy/log_rho_max`: the largest |log ρ_t| in nats, NaN without tokens. It is 0 if π_old
        is the policy that the step began with; anything else is a mismatch of log-probs, which the
        product raises to the power t.
    """
    worst = math.nan
    if first.tokens.any():
        report = first.on_policy_check()
        worst = report.worst
        if not report.passes:
            logger.warning("before the first update, where the policy has not moved: %s", report)
    return {"on_policy/log_rho_max": worst}
