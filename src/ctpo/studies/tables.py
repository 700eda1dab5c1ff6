"""Tables of a study: outcomes, differences, what the tuning chose, and headroom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ctpo.studies import statistics
from ctpo.studies.cells import choose, free
from ctpo.studies.results import Result, trials
from ctpo.studies.study import Levels, Study
from ctpo.theory import Table
from ctpo.theory.tables import Cell

Group = tuple[tuple[str, ...], list[list[Result]]]
"""Levels of the axes, and the runs of the test by stratum."""


def tables(study: Study, runs: Sequence[Result]) -> list[Table]:
    """Return all tables of a study.

    Raises:
        StudyError: The tuning is not done.
    """
    found = [outcomes(study, runs), differences(study, runs)]
    if study.tuning is not None:
        found.append(tuning(study, runs))
    if study.headroom is not None:
        found.append(headroom(study, runs))
    return found


def groups(study: Study, runs: Sequence[Result]) -> Iterator[Group]:
    """Yield the test's runs at each combination of levels, then all of them, if it has several."""
    test = [run for run in runs if run.phase == "test"]
    strata = []
    for levels in study.settings(study.axes):
        strata.append([run for run in test if levels.items() <= run.levels.items()])
        yield tuple(levels.values()), [strata[-1]]
    if len(strata) > 1:
        yield ("all",) * len(study.axes), strata


def outcomes(study: Study, runs: Sequence[Result]) -> Table:
    """How each method came out, with what became of its runs."""
    rows: list[tuple[Cell, ...]] = []
    for levels, strata in groups(study, runs):
        for method in study.methods:
            own = [[run for run in stratum if run.method == method] for stratum in strata]
            every = [run for stratum in own for run in stratum]
            done = [run for run in every if not run.failed]
            scores = [np.array([_score(study, r) for r in s if not r.failed]) for s in own]
            if not done or not all(map(len, scores)):
                continue
            last = [run.rows[-1] for run in done]
            clipped = _median(last, "clip_high", "clip_low", "clip_dual")
            rows.append(
                (
                    *levels,
                    method,
                    f"{len(done)} of {len(strata) * len(study.seeds)}",
                    _percent(statistics.bootstrap(scores, statistics.mean)),
                    _percent(statistics.bootstrap(scores, statistics.interquartile_mean)),
                    sum(run.collapsed(study) for run in done),
                    len(every) - len(done),
                    _until(study, done),
                    f"{_median(last, 'kl'):.2f}",
                    f"{_median(last, 'ess'):.2f}",
                    f"{100 * clipped:.1f} %",
                )
            )
    columns = (
        *study.axes,
        "method",
        "runs",
        "mean (95 %)",
        "interquartile mean (95 %)",
        "collapsed",
        "failed",
        f"batches to {study.threshold:.0%}",
        "KL",
        "ESS",
        "clipped",
    )
    return Table(f"{study.name}-outcomes", "Outcomes", columns, tuple(rows))


def differences(study: Study, runs: Sequence[Result]) -> Table:
    """Each method less the reference, over pairs of the same levels, seed and warm start."""
    rows: list[tuple[str | int, ...]] = []
    p_values = []
    for levels, strata in groups(study, runs):
        for method in study.methods:
            pairs = [_pairs(study, stratum, method) for stratum in strata]
            if method == study.reference or not all(map(len, pairs)):
                continue
            less = [stratum[:, 0] - stratum[:, 1] for stratum in pairs]
            p_values.append(statistics.sign_flip(np.concatenate(less)))
            better = statistics.probability_of_improvement(pairs)
            rows.append(
                (
                    *levels,
                    f"{method} − {study.reference}",
                    sum(map(len, pairs)),
                    _percent(statistics.bootstrap(less, statistics.mean), sign="+"),
                    f"{better.value:.2f} ({better.low:.2f} to {better.high:.2f})",
                )
            )
    corrected = statistics.holm(p_values)
    full = [
        (*row, f"{p:.3f}", f"{q:.3f}") for row, p, q in zip(rows, p_values, corrected, strict=True)
    ]
    columns = (
        *study.axes,
        "difference",
        "pairs",
        "points (95 %)",
        "better run (95 %)",
        "p",
        "p, Holm",
    )
    return Table(f"{study.name}-less-{study.reference}", "Differences", columns, tuple(full))


def tuning(study: Study, runs: Sequence[Result]) -> Table:
    """Everything that was tried in the tuning, and what was chosen."""
    assert study.tuning is not None
    tried = trials(study, runs)
    chosen = choose(study, tried)
    rows: list[tuple[Cell, ...]] = []
    seen: dict[tuple[str, tuple[str, ...]], list[float | None]] = {}
    for trial in tried:
        seen.setdefault((trial.method, tuple(trial.levels.values())), []).append(trial.outcome)
    axes = [*study.axes, *study.tuning.axes]
    order = list(study.methods)
    for (method, levels), scores in sorted(seen.items(), key=lambda one: order.index(one[0][0])):
        by_axis: Levels = dict(zip(tried[0].levels, levels, strict=True))
        won = chosen[method, free(study, by_axis)]
        complete = [score for score in scores if score is not None]
        rows.append(
            (
                method,
                *(by_axis[axis] for axis in axes),
                len(complete),
                f"{100 * np.mean(complete):.1f}" if complete else "failed",
                "chosen" if won.items() <= by_axis.items() else "",
            )
        )
    columns = ("method", *axes, "runs", "mean outcome", "")
    return Table(f"{study.name}-tuning", "Tuning", columns, tuple(rows))


def headroom(study: Study, runs: Sequence[Result]) -> Table:
    """The farthest level of an axis at which nearly all seeds are sound, by method."""
    assert study.headroom is not None
    axis, rest = study.headroom.axis, dict(study.axes)
    levels = list(rest.pop(axis))
    rows: list[tuple[Cell, ...]] = []
    test = [run for run in runs if run.phase == "test"]
    for others in study.settings(rest):
        place = [run for run in test if others.items() <= run.levels.items()]
        cells = {
            (method, level): [r for r in place if (r.method, r.levels[axis]) == (method, level)]
            for method in study.methods
            for level in levels
        }
        means = [
            float(np.mean([_score(study, r) for r in cell]))
            for cell in cells.values()
            if cell and not any(r.failed for r in cell)
        ]
        least = max(means, default=0.0) - study.headroom.margin
        for method in study.methods:
            sound = {
                level: sum(_sound(study, run, least) for run in cells[method, level])
                for level in levels
            }
            enough = [v for v in levels if sound[v] >= study.headroom.sound * len(study.seeds)]
            rows.append(
                (*others.values(), method, *(sound[v] for v in levels), (enough or ["none"])[-1])
            )
    columns = (*rest, "method", *(f"{axis} {level}" for level in levels), "farthest")
    title = f"Sound runs of {len(study.seeds)}"
    return Table(f"{study.name}-headroom", title, columns, tuple(rows))


def batches_until(study: Study, run: Result) -> float:
    """Return after how many batches an evaluation first reached the threshold; else infinity."""
    reached = [row["batch"] for row in run.rows if row["sampled"] >= study.threshold]
    return float(min(reached, default=np.inf))


def versions(runs: Sequence[Result]) -> Table:
    """What the runs were made with; more than one line says that they are not all alike."""
    names = ("digest", "ctpo", "torch", "transformers", "trl", "python")
    counts = Counter(
        tuple(str(run.rows[0].get(name)) for name in names) for run in runs if run.rows
    )
    rows: list[tuple[Cell, ...]] = [(*version, count) for version, count in counts.items()]
    return Table("versions", "Versions", (*names, "runs"), tuple(rows))


def _pairs(study: Study, stratum: Sequence[Result], method: str) -> np.ndarray:
    """Outcomes of a method and of the reference, [pairs, 2]."""
    both: dict[tuple[int, str | None], dict[str, float]] = {}
    for run in stratum:
        if not run.failed:
            both.setdefault((run.seed, run.warm_start), {})[run.method] = _score(study, run)
    names = (method, study.reference)
    pairs = [[pair[name] for name in names] for pair in both.values() if pair.keys() >= {*names}]
    return np.array(pairs).reshape(-1, 2)


def _sound(study: Study, run: Result, least: float) -> bool:
    return not run.failed and not run.collapsed(study) and _score(study, run) >= least


def _score(study: Study, run: Result) -> float:
    score = run.outcome(study)
    assert score is not None, "failed runs are left out before"
    return score


def _until(study: Study, runs: Sequence[Result]) -> str:
    batches = [batches_until(study, run) for run in runs]
    reached = int(np.isfinite(batches).sum())
    # The upper median: between a number and never there is nothing.
    median = sorted(batches)[len(batches) // 2]
    shown = f"{median:g}" if np.isfinite(median) else f"> {runs[0].rows[-1]['batch']}"
    return f"{shown}, {reached} of {len(runs)}"


def _median(rows: Sequence[dict[str, Any]], *names: str) -> float:
    """Of sums; not a number where a run has none."""
    values = [[np.nan if row[name] is None else row[name] for name in names] for row in rows]
    return float(np.median(np.sum(values, axis=1)))


def _percent(interval: statistics.Interval, sign: str = "") -> str:
    value, low, high = (100 * v for v in (interval.value, interval.low, interval.high))
    if np.isnan(low):
        return f"{value:{sign}.1f}"
    return f"{value:{sign}.1f} ({low:{sign}.1f} to {high:{sign}.1f})"
