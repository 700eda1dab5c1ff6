"""How long cells take: what those that are done took, and before that what the file says."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from ctpo.studies.study import Levels, Study


class Costs:
    """Seconds of a cell by the levels of the study's axes."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._measured: dict[tuple[str, ...], list[float]] = {}

    def add(self, levels: Levels, run: Path) -> None:
        """Take account of a run that is done."""
        phases = json.loads((run / "timing.json").read_text())["phases"]
        own = sum(seconds for name, seconds in phases.items() if name != "warm start")
        self._measured.setdefault(self._key(levels), []).append(own)

    def of(self, levels: Levels) -> float:
        """Return the mean of like cells; of all where there is none; else what the file says."""
        like = self._measured.get(self._key(levels))
        every = like or [s for seconds in self._measured.values() for s in seconds]
        return sum(every) / len(every) if every else 60 * self._study.cell_minutes

    def total(self, cells: Iterable[Levels]) -> float:
        """Return the seconds of several cells, one after the other."""
        return sum(self.of(levels) for levels in cells)

    def _key(self, levels: Levels) -> tuple[str, ...]:
        return tuple(levels[axis] for axis in self._study.axes)
