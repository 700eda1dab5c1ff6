"""Running a study: the cells that are to be done, their warm starts first, and the time left."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from ctpo.studies.cells import Cell, choose, result_cells, tuning_cells
from ctpo.studies.costs import Costs
from ctpo.studies.directory import State, StudyDirectory, write_failure, write_job
from ctpo.studies.pools import Pool
from ctpo.studies.results import results, rows_of, trials
from ctpo.studies.study import Levels, Study
from ctpo.training.recipe.loading import dump_recipe
from ctpo.training.recipe.recipe import Recipe
from ctpo.training.tiny.warm_start import fingerprint

_T = TypeVar("_T")
_TICK = 1.0  # seconds between two looks at the clock


@dataclass
class Progress:
    """Where a study is; given to `show`.

    Attributes:
        phase: `tuning`, `warm starts` or `test`.
        states: State of every cell of the phase that is this call's to do, by the cell's name.
        running: When each cell that runs now began, seconds of `time.monotonic`.
        seconds_left: Estimated seconds until this call is done, both phases.
    """

    phase: str = ""
    states: dict[str, State] = field(default_factory=dict)
    running: dict[str, float] = field(default_factory=dict)
    seconds_left: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What there is to do of a study.

    Attributes:
        tuning: Cells of the tuning that are this call's.
        test: The same of the test; None while it is not known what the tuning chooses.
        all_tuning: Those of all shards.
    """

    tuning: list[Cell]
    test: list[Cell] | None
    all_tuning: list[Cell]


class StudyRun:
    """One call of `ctpo study run`.

    Args:
        study: The study.
        folder: Where its file is.
        directory: Where it is kept.
        cache: Directory of warm starts.
        shard: Which part of how many is this call's, from (1, 1).
    """

    def __init__(
        self,
        study: Study,
        folder: Path,
        directory: StudyDirectory,
        cache: Path,
        shard: tuple[int, int] = (1, 1),
    ) -> None:
        self._study = study
        self._folder = folder
        self._directory = directory
        self._cache = cache
        self._shard = shard
        self._costs = Costs(study)
        self._warm_starts = WarmStarts()
        self.progress = Progress()

    def plan(self) -> Plan:
        """Return what there is to do, done or not.

        Raises:
            StudyError: A recipe cannot be made, or no setting came through the tuning.
        """
        every = tuning_cells(self._study, self._folder)
        test = None
        if all(self._directory.state(c) in (State.DONE, State.FAILED) for c in every):
            places = [self._directory.place(cell) for cell in every]
            rows = [row for place in places for row in rows_of(place, self._study)]
            chosen = choose(self._study, trials(self._study, results(rows)))
            test = self._own(result_cells(self._study, self._folder, chosen))
        return Plan(self._own(every), test, every)

    def run(self, pool: Pool, show: Callable[[Progress], None]) -> bool:
        """Do what is to be done; a cell that is done or failed is left as it is.

        Args:
            pool: Where.
            show: Called whenever something has changed, and every second.

        Returns:
            Whether the test was run too: it cannot be while other shards' tuning is not there.

        Raises:
            StudyError: As `plan`, or a cell's directory has been run by another recipe.
        """
        plan = self.plan()
        if plan.test is None:
            self._work("tuning", plan.tuning, pool, show, self.upcoming())
            plan = self.plan()
        if plan.test is None:
            return False
        self._work("test", plan.test, pool, show, [])
        return True

    def seconds(self, cells: Iterable[Cell]) -> float:
        """Return about how long cells take one after the other.

        Args:
            cells: The cells; those that are done are what is judged by, and cost nothing.
        """
        left = []
        for cell in cells:
            if self._directory.state(cell) is State.DONE:
                self._costs.add(cell.levels, self._directory.place(cell) / "run")
            else:
                left.append(cell.levels)
        return self._costs.total(left)

    def upcoming(self) -> list[Levels]:
        """Return the levels of the test's cells, while it is not known what the tuning chooses."""
        each = len(self._study.methods) * len(self._study.seeds)
        levels = [one for one in self._study.settings(self._study.axes) for _ in range(each)]
        return self._own(levels)

    def upcoming_seconds(self) -> float:
        """Return about how long they take one after the other."""
        return self._costs.total(self.upcoming())

    def _own(self, every: Sequence[_T]) -> list[_T]:
        number, of = self._shard
        return list(every[number - 1 :: of])

    def _work(
        self,
        phase: str,
        cells: list[Cell],
        pool: Pool,
        show: Callable[[Progress], None],
        upcoming: Sequence[Levels],
    ) -> None:
        states = {cell.name: self._directory.state(cell) for cell in cells}
        self.seconds(cells)  # learns from those that are done
        left = [cell for cell in cells if states[cell.name] in (State.NEW, State.BEGUN)]
        missing: dict[str, Recipe] = {}
        for cell in left:
            digest = self._warm_starts.digest(cell.recipe)
            if digest is not None and not (self._cache / digest).is_dir():
                missing.setdefault(digest, cell.recipe)
        self.progress = Progress("warm starts", dict.fromkeys(missing, State.NEW))
        lost = self._make_warm_starts(missing, pool, show)
        self.progress = Progress(phase, states)
        places = {}
        for cell in left:
            digest = self._warm_starts.digest(cell.recipe)
            places[cell.name] = self._directory.write_cell(cell, digest)
            if digest in lost:
                write_failure(places[cell.name], f"its warm start failed: {lost[digest]}")
                states[cell.name] = State.FAILED
        by_name = {cell.name: cell for cell in left if states[cell.name] is not State.FAILED}

        def ended(name: str) -> None:
            states[name] = self._directory.state(by_name[name])
            if states[name] is State.DONE:
                self._costs.add(by_name[name].levels, places[name] / "run")

        def seconds_left(waiting: Iterable[str]) -> float:
            running = sum(
                max(0.0, self._costs.of(by_name[name].levels) - (time.monotonic() - began))
                for name, began in self.progress.running.items()
            )
            rest = self._costs.total(by_name[name].levels for name in waiting)
            return (running + rest + self._costs.total(upcoming)) / pool.width

        jobs = {name: places[name] for name in by_name}
        self._feed(jobs, pool, show, ended, seconds_left, warm=False)

    def _make_warm_starts(
        self, missing: Mapping[str, Recipe], pool: Pool, show: Callable[[Progress], None]
    ) -> dict[str, str]:
        """Make warm starts before any cell needs them; returns the errors of those that failed."""
        places = {digest: self._directory.path / "warm-starts" / digest for digest in missing}
        for digest, recipe in missing.items():
            places[digest].mkdir(exist_ok=True)
            write_job(places[digest], dump_recipe(recipe), {"warm_start": digest})

        def failed(digest: str) -> bool:
            return (places[digest] / "failed.json").is_file()

        def ended(digest: str) -> None:
            self.progress.states[digest] = State.FAILED if failed(digest) else State.DONE

        to_do = {digest: place for digest, place in places.items() if not failed(digest)}
        self._feed(to_do, pool, show, ended, lambda _: 0.0, warm=True)
        return {
            digest: json.loads((place / "failed.json").read_text())["error"]
            for digest, place in places.items()
            if failed(digest)
        }

    def _feed(
        self,
        jobs: Mapping[str, Path],
        pool: Pool,
        show: Callable[[Progress], None],
        ended: Callable[[str], None],
        seconds_left: Callable[[Iterable[str]], float],
        *,
        warm: bool,
    ) -> None:
        """Hand jobs to the pool, as many at a time as it runs."""
        waiting = list(jobs)
        futures: dict[Future[float], str] = {}
        running = self.progress.running
        while waiting or futures:
            while waiting and len(futures) < pool.width:
                name = waiting.pop(0)
                futures[pool.submit(jobs[name], self._cache, warm=warm)] = name
                running[name] = time.monotonic()
            self.progress.seconds_left = seconds_left(waiting)
            show(self.progress)
            done, _ = wait(futures, timeout=_TICK, return_when=FIRST_COMPLETED)
            for future in done:
                name = futures.pop(future)
                del running[name]
                future.result()  # what a child can mend is recorded; the rest is raised here
                ended(name)
        self.progress.seconds_left = seconds_left([])
        show(self.progress)


class WarmStarts:
    """Digests of warm starts; each is made once, since it hashes the code too."""

    def __init__(self) -> None:
        self._digests: dict[str, str] = {}

    def digest(self, recipe: Recipe) -> str | None:
        """Return the digest of a recipe's warm start, None where it has none."""
        if recipe.warm_start is None:
            return None
        # All that the digest can depend on, and more.
        own = {"seed", "objective", "optimization", "evaluation", "name"}
        key = recipe.model_dump_json(exclude=own)
        if key not in self._digests:
            self._digests[key] = fingerprint(recipe)
        return self._digests[key]
