"""Where a run keeps its files for verl and from it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Start(NamedTuple):
    """One time that a run was started: the first, or a resumption."""

    number: int
    """Counted from 1."""
    after: int
    """The batch whose checkpoint it went on from; 0 if there was none."""


FIRST = Start(1, 0)


class VerlFiles:
    """Where a run's files for and from verl are.

    Args:
        run: The run directory, as every machine of the cluster sees it.

    Attributes:
        folder: What only verl reads and writes.
        train: The problems to train on, in verl's schema.
        held_out: The problems to evaluate on, in verl's schema.
        config: The whole configuration of verl.
        log: All that verl and Ray print.
        validations: What verl evaluated, one file per step.
        rollouts: What verl rolled out, one file per step.
        newest: Where verl says of which step its newest checkpoint is.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.folder = run / "verl"
        self.train = self.folder / "train.parquet"
        self.held_out = self.folder / "held_out.parquet"
        self.config = self.folder / "config.yaml"
        self.log = self.folder / "log.txt"
        self.validations = self.folder / "validations"
        self.rollouts = self.folder / "rollouts"
        self.newest = run / "checkpoints" / "latest_checkpointed_iteration.txt"

    def metrics(self, start: Start) -> Path:
        """What verl logs of one start of the run."""
        return self.folder / f"metrics-{start.number:03d}-after-{start.after:04d}.jsonl"

    def starts(self) -> list[Start]:
        """Return the starts of the run so far."""
        names = [file.stem.split("-") for file in sorted(self.folder.glob("metrics-*.jsonl"))]
        return [Start(int(number), int(after)) for _, number, _, after in names]

    def last_checkpoint(self) -> Path | None:
        """Return the newest checkpoint, `global_step_N`, or None, as verl says it."""
        if not self.newest.is_file():
            return None
        return self.newest.with_name(f"global_step_{self.newest.read_text().strip()}")
