"""Figures of a study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ctpo.report import style
from ctpo.studies import statistics
from ctpo.studies.results import Result
from ctpo.studies.study import Study
from ctpo.studies.tables import groups

_COLOURS = (
    style.BLUE,
    style.ORANGE,
    style.GREEN,
    style.RED,
    style.PURPLE,
    style.SKY,
    style.INK,
    style.GREY,
)
_RESAMPLES = 2000
Look = dict[str, Any]
Draw = Callable[[Study, Sequence[Result], Axes, Look], None]


def curves(study: Study, runs: Sequence[Result]) -> Figure | None:
    """Held-out accuracy against batches, updates above: means with 95 % bands over seeds."""
    return _panels(study, runs, _curve, "Accuracy over training", "rollout batch")


def clips(study: Study, runs: Sequence[Result]) -> Figure | None:
    """Share of tokens without gradient against their position, the mean over seeds."""
    return _panels(study, runs, _clip, "Clip rate by position", "position t")


def profiles(study: Study, runs: Sequence[Result]) -> Figure | None:
    """Performance profiles: the share of runs that came out above each accuracy, with bands."""
    return _panels(study, runs, _profile, "Runs above an accuracy", "accuracy")


FIGURES = {
    "curves": (
        curves,
        "Means over seeds with 95 % bands. The axis above counts updates; answers sampled are in "
        "proportion to batches.",
    ),
    "profiles": (
        profiles,
        "The farther to the right a line falls, the better; a step far to the left is a collapsed "
        "run, which a mean would hide.",
    ),
    "clips": (clips, "Of all updates of a run, the mean over seeds."),
}
"""By name: what draws the figure, and how it is read."""


def _panels(study: Study, runs: Sequence[Result], draw: Draw, title: str, x: str) -> Figure | None:
    places = [
        (levels, strata[0])
        for levels, strata in groups(study, runs)
        if len(strata) == 1 and any(not run.failed for run in strata[0])
    ]
    if not places:
        return None
    columns = min(2, len(places))
    lines = -(-len(places) // columns)
    figure = style.new_figure(height=0.8 + 3.4 * lines)
    for number, (levels, stratum) in enumerate(places, start=1):
        axes = figure.add_subplot(lines, columns, number)
        for index, method in enumerate(study.methods):
            own = [run for run in stratum if run.method == method and not run.failed]
            if own:
                colour = _COLOURS[index % len(_COLOURS)]
                line = "-" if index < len(_COLOURS) else "--"
                draw(study, own, axes, {"color": colour, "linestyle": line, "label": method})
        names = ", ".join(f"{a} {level}" for a, level in zip(study.axes, levels, strict=True))
        style.dress(axes, title=names or title, x=x, y="share", size=9)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_ylim(bottom=0)
    style.legend(figure.axes[0], size=8, loc="best")
    return figure


def _curve(study: Study, runs: Sequence[Result], axes: Axes, look: Look) -> None:
    batches = [row["batch"] for row in runs[0].rows]
    values = [[row["sampled"] for row in run.rows] for run in runs]
    low, mean, high = statistics.band([np.array(values)], statistics.mean, resamples=_RESAMPLES)
    axes.plot(batches, mean, **look)
    axes.fill_between(batches, low, high, color=look["color"], alpha=0.15, linewidth=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    last = runs[0].rows[-1]
    if not axes.child_axes:  # one for all methods, whose updates are as many
        each = last["updates"] / last["batch"]
        above = axes.secondary_xaxis("top", functions=(lambda b: b * each, lambda u: u / each))
        above.tick_params(labelsize=7, labelcolor=style.GREY)


def _clip(study: Study, runs: Sequence[Result], axes: Axes, look: Look) -> None:
    whole = [run.rows[-1] for run in runs if run.rows[-1]["position"]]
    if not whole:  # too few tokens for any rate
        return
    positions = sorted(set.intersection(*(set(row["position"]) for row in whole)))
    rates = [
        [dict(zip(row["position"], row["clip_by_position"], strict=True))[p] for p in positions]
        for row in whole
    ]
    axes.plot(positions, np.mean(rates, axis=0), **look)


def _profile(study: Study, runs: Sequence[Result], axes: Axes, look: Look) -> None:
    at = np.linspace(0, 1, 201)
    scores = np.array([run.outcome(study) for run in runs])
    low, share, high = statistics.profile([scores], at, resamples=_RESAMPLES)
    axes.plot(at, share, **look)
    axes.fill_between(at, low, high, color=look["color"], alpha=0.12, linewidth=0)
