"""What the losses of a training step say, added up on the device until the step is over.

verl's loss function sees micro-batches; it knows neither the step nor the other ranks. So the
worker opens a record around its step (see `hooks`), the losses add to it, and at the end the ranks'
records are merged: metrics are over all tokens of the step, whatever the sizes of micro-batches,
mini-batches and shards, and the statistics by position become one file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ctpo.engines.batch_files import files_after, write_positions
from ctpo.objective import PositionStatistics

logger = logging.getLogger(__name__)


@dataclass
class Record:
    """What the losses of this rank have said since the record was opened.

    Attributes:
        total: Statistics of all micro-batches; None if there were none.
        before_updates: Those of the first mini-batch, of weights that had not moved yet.
        positions: Where the losses want statistics by position to be written.
    """

    total: PositionStatistics | None = None
    before_updates: PositionStatistics | None = None
    positions: str | None = None

    def end_mini_batch(self) -> None:
        """Take note that the weights move now."""
        if self.before_updates is None:
            self.before_updates = self.total


_open: Record | None = None


@contextmanager
def record() -> Iterator[Record]:
    """Open a record, which the losses of this process add to."""
    global _open
    _open = opened = Record()
    try:
        yield opened
    finally:
        _open = None


def current() -> Record | None:
    """Return the record that is open, if one is."""
    return _open


def add(statistics: PositionStatistics, positions: str | None) -> bool:
    """Add a micro-batch to the open record.

    Args:
        statistics: Of the micro-batch.
        positions: Directory that statistics by position are to be written to, or None.

    Returns:
        Whether a record is open.

    Raises:
        RuntimeError: If there is none, and statistics by position are asked for.
    """
    if _open is None:
        if positions is not None:
            raise RuntimeError(
                f"policy_loss.positions is {positions!r}, but statistics by position are recorded "
                "around TrainingWorker.train_mini_batch of verl, and this loss was called from "
                "elsewhere. Set positions=null, or open ctpo.engines.verl.recording.record() "
                "around the step"
            )
        return False
    _open.total = statistics if _open.total is None else _open.total + statistics
    _open.positions = positions
    return True


class StepFiles:
    """One file of statistics by position per training step.

    verl tells its workers the step when it hands new weights to the generator: before the first
    step, after every step, and after loading a checkpoint with the checkpoint's. What is trained
    until the next time belongs to the step after. Several updates within a step, as asynchronous
    training makes them, go into one file.
    """

    def __init__(self) -> None:
        self._weights_of: int | None = None
        self._last: tuple[int, PositionStatistics] | None = None

    @property
    def step(self) -> int:
        """Number of the training step that is under way.

        Raises:
            RuntimeError: If verl has not told.
        """
        if self._weights_of is None:
            raise RuntimeError(
                "the number of the training step is unknown: verl tells it to its workers with "
                "ActorRolloutRefWorker.update_weights, which was not called. In a loop of your "
                "own, call ctpo.engines.verl.recording.step_files.weights_are_of(step) after "
                "every step, beginning with 0"
            )
        return self._weights_of + 1

    def weights_are_of(self, step: int) -> None:
        """Take note of the step after which the generator gets the weights."""
        self._weights_of = step

    def write(self, table: Path, statistics: PositionStatistics) -> None:
        """Write or add to the file of the step that is under way.

        Args:
            table: The directory; is made if need be. Files of later steps, left behind by a run
                that was killed and resumed from an earlier step, are dropped.
            statistics: Of an update, over all ranks.
        """
        step = self.step
        if self._last is None:
            table.mkdir(parents=True, exist_ok=True)
            for file in files_after(table, step):
                logger.warning("dropping %s: training is at step %d again", file, step)
                file.unlink()
        elif self._last[0] == step:
            statistics = self._last[1] + statistics
        write_positions(table, statistics, step)
        self._last = (step, statistics)


step_files = StepFiles()
"""Those of this process, which has one actor at most."""
