"""Where a run keeps its files for verl and from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


class Start(NamedTuple):
    """One time that a run was started: the first, or a resumption."""

    number: int
    """Counted from 1."""
    after: int
    """The batch whose checkpoint it went on from; 0 if there was none."""


FIRST = Start(1, 0)


@dataclass(frozen=True)
class VerlFiles:
    """Where a run's files for and from verl are.

    Attributes:
        run: The run directory, as every machine of the cluster sees it.
    """

    run: Path

    @property
    def folder(self) -> Path:
        """What only verl reads and writes."""
        return self.run / "verl"

    @property
    def train(self) -> Path:
        """The problems to train on, in verl's schema."""
        return self.folder / "train.parquet"

    @property
    def held_out(self) -> Path:
        """The problems to evaluate on, in verl's schema."""
        return self.folder / "held_out.parquet"

    @property
    def config(self) -> Path:
        """The whole configuration of verl."""
        return self.folder / "config.yaml"

    @property
    def log(self) -> Path:
        """All that verl and Ray print."""
        return self.folder / "log.txt"

    @property
    def validations(self) -> Path:
        """What verl evaluated, one file per step."""
        return self.folder / "validations"

    @property
    def rollouts(self) -> Path:
        """What verl rolled out, one file per step."""
        return self.folder / "rollouts"

    def metrics(self, start: Start) -> Path:
        """What verl logs of one start of the run."""
        return self.folder / f"metrics-{start.number:03d}-after-{start.after:04d}.jsonl"

    def starts(self) -> list[Start]:
        """Return the starts of the run so far."""
        names = [file.stem.split("-") for file in sorted(self.folder.glob("metrics-*.jsonl"))]
        return [Start(int(number), int(after)) for _, number, _, after in names]

    @property
    def newest(self) -> Path:
        """Where verl says of which step its newest checkpoint is."""
        return self.run / "checkpoints" / "latest_checkpointed_iteration.txt"

    def last_checkpoint(self) -> Path | None:
        """Return the newest checkpoint, `global_step_N`, or None, as verl says it."""
        if not self.newest.is_file():
            return None
        return self.newest.with_name(f"global_step_{self.newest.read_text().strip()}")
