"""Statistics by position where a loss function is told neither step nor batch: updates are counted.

Engines call a loss in worker processes, once per micro-batch. In the same process an optimizer
takes the step, and torch tells of every one.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch.distributed as dist
from torch.optim.optimizer import register_optimizer_step_post_hook

from ctpo.engines.batch_files import batch_file, write_positions
from ctpo.objective import PositionStatistics


class UpdateFiles:
    """One file per batch of rollouts, written after its last update.

    An update is one or more calls of the loss, then a step of an optimizer; further steps without a
    call between (another optimizer of the same update, a critic's) count for nothing. One that the
    engine skips, as for infinite gradients, does not count either: what follows then shifts.

    Several ranks write a file each, and readers add them up. A resumed run goes on numbering after
    the last file.

    Args:
        table: The directory; made with the first file.
        updates_per_batch: Updates on one batch of rollouts.
    """

    def __init__(self, table: Path, updates_per_batch: int) -> None:
        self.table, self.updates_per_batch = table, updates_per_batch
        self._sum: PositionStatistics | None = None
        self._updates, self._moved = 0, True
        self._hook = register_optimizer_step_post_hook(lambda *_: self._stepped())

    def add(self, statistics: PositionStatistics) -> None:
        """Add a micro-batch."""
        self._sum = statistics if self._sum is None else self._sum + statistics
        self._moved = False

    def close(self) -> None:
        """Count no more updates."""
        self._hook.remove()

    def _stepped(self) -> None:
        if self._moved or self._sum is None:
            return
        self._moved = True
        self._updates += 1
        if self._updates == self.updates_per_batch:
            self.table.mkdir(parents=True, exist_ok=True)
            rank = dist.get_rank() if dist.is_initialized() and dist.get_world_size() > 1 else None
            write_positions(self.table, self._sum, _next(self.table, rank), rank)
            self._sum, self._updates = None, 0


def _next(table: Path, rank: int | None) -> int:
    """Return the number after this rank's last."""
    pattern = re.compile(re.escape(batch_file(0, rank)).replace("0000", r"(\d+)", 1))
    found = [match for file in table.iterdir() if (match := pattern.fullmatch(file.name))]
    return 1 + max((int(match.group(1)) for match in found), default=0)


_open: dict[Path, UpdateFiles] = {}


def recorded(table: Path, updates_per_batch: int) -> UpdateFiles:
    """Return this process's record for a directory: one, however often the loss is unpickled."""
    if table not in _open:
        _open[table] = UpdateFiles(table, updates_per_batch)
    return _open[table]
