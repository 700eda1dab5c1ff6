"""Figures against the position of a token: curves with their intervals, answers beneath."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from ctpo.report import style
from ctpo.report.positions import ByPosition, fit_spread
from ctpo.report.reading import Run

POSITION = "position t (tokens the policy wrote)"
PARTS = (style.ORANGE, style.GREEN, style.BLUE)


@dataclass(frozen=True)
class Quantity:
    """What is drawn against position: `mean`, `std` or `clip_total` of `ByPosition`, in words."""

    name: str
    title: str
    y: str
    share: bool = False


CLIP = Quantity("clip_total", "Clip rate by position", "share of tokens clipped", share=True)
SPREAD = Quantity("std", "Spread of the cumulative ratio", r"std($\log\,\rho_t$)")
DRIFT = Quantity("mean", "Drift of the cumulative ratio", r"mean of $\log\,\rho_t$")


@dataclass(frozen=True)
class Curve:
    """One line, with its band."""

    label: str
    colour: str
    part: ByPosition


def ratio_spread(run: Run, width: float = style.WIDTH) -> Figure | None:
    """Standard deviation of log ρ_t against t, by thirds of training, with the fit σ̂√t.

    Returns:
        The figure; None without `positions.parquet`.
    """
    if run.positions is None:
        return None
    parts = [curve for curve in _thirds(run) if len(curve.part.position)]
    fits = [fit_spread(curve.part).sigma for curve in parts]
    named = [
        Curve(rf"{curve.label}:  $\hat\sigma$ = {fit:.4f}", curve.colour, curve.part)
        for curve, fit in zip(parts, fits, strict=True)
    ]
    figure, axes = draw(named, SPREAD, width)
    dashed: dict[str, Any] = {"linestyle": (0, (4, 2)), "linewidth": 1.2}
    for curve, fit in zip(parts, fits, strict=True):
        position = curve.part.position
        axes.plot(position, fit * np.sqrt(position), color=curve.colour, **dashed)
    whole = run.positions.pool()
    if len(whole.position):
        free = fit_spread(whole).power
        note = r"fit $\hat\sigma\sqrt{t}$"
        if not np.isnan(free):
            note += rf"  (with the exponent free: $t^{{\,{free:.2f}}}$)"
        axes.plot([], [], color=style.GREY, label=note, **dashed)
    style.legend(axes, loc="best")
    return figure


def ratio_drift(run: Run, width: float = style.WIDTH) -> Figure | None:
    """Mean of log ρ_t against t, by thirds of training.

    Returns:
        The figure; None without `positions.parquet`.
    """
    if run.positions is None:
        return None
    figure, axes = draw(_thirds(run), DRIFT, width)
    style.legend(axes, loc="best")
    return figure


def clip_rate(run: Run, width: float = style.WIDTH) -> Figure | None:
    """Share of tokens without gradient against position, by the bound they are beyond.

    Returns:
        The figure; None without `positions.parquet`.
    """
    if run.positions is None:
        return None
    pooled = run.positions.pool()
    figure, axes = draw([Curve("total", style.INK, pooled)], CLIP, width)
    lines = (
        (pooled.clip_high, "above the window, A > 0", style.BLUE, "-"),
        (pooled.clip_low, "below the window, A < 0", style.RED, "-"),
        (pooled.clip_dual, "above the dual clip, A < 0", style.GREEN, "--"),
    )
    for rate, label, colour, line in lines:
        # A bound that was never met, as when the dual clip is off, only clutters the legend.
        if rate.any():
            axes.plot(
                pooled.position, rate, color=colour, linewidth=1.6, linestyle=line, label=label
            )
    style.legend(axes, loc="best")
    return figure


def draw(
    curves: Sequence[Curve], quantity: Quantity, width: float = style.WIDTH
) -> tuple[Figure, Axes]:
    """Draw one quantity of each curve, and beneath how many answers there are.

    The axis does not stretch to positions that few answers reach: what leaves it is marked at its
    edge, with the farthest value.

    Args:
        curves: What to draw, without a legend yet.
        quantity: Which of its numbers.
        width: Of the figure, in inches.

    Returns:
        The figure and its upper axes.
    """
    figure = style.new_figure(width, 4.6 if width > style.NARROW else 4.2)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    if quantity.name == "mean":
        axes.axhline(0, color=style.GREY, linewidth=1)
    for curve in curves:
        part, values = curve.part, getattr(curve.part, quantity.name)
        axes.plot(part.position, values, color=curve.colour, linewidth=1.9, label=curve.label)
        if quantity.name in part.intervals:
            axes.fill_between(
                part.position,
                *part.intervals[quantity.name],
                color=curve.colour,
                alpha=0.15,
                linewidth=0,
            )
        below.step(part.position, part.responses, where="mid", color=curve.colour, linewidth=1.2)
    low, high = limits([(curve.part, getattr(curve.part, quantity.name)) for curve in curves])
    axes.set_ylim(low, max(high, 0.01) if quantity.share else high)
    for curve in curves:
        values = getattr(curve.part, quantity.name)
        for edge, marker, out in ((high, "^", values > high), (low, "v", values < low)):
            if out.any():
                farthest = values[out][np.abs(values[out]).argmax()]
                text = f"{100 * farthest:.0f} %" if quantity.share else f"{farthest:.2f}"
                place = float(curve.part.position[out].mean())
                axes.plot([place], [edge], marker=marker, color=curve.colour, clip_on=False)
                axes.annotate(
                    f"to {text}",
                    (place, edge),
                    textcoords="offset points",
                    xytext=(0, -14 if marker == "^" else 8),
                    ha="right",
                    color=curve.colour,
                    fontsize=9,
                )
    size = style.type_size(width)
    style.dress(axes, title=quantity.title, x="", y=quantity.y, size=size)
    style.dress(below, title="", x=POSITION, y="answers", size=size)
    axes.tick_params(labelbottom=False)
    if quantity.share:
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    below.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    below.yaxis.set_major_formatter(FuncFormatter(lambda n, _: _short(n)))
    below.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    return figure, axes


def limits(curves: Sequence[tuple[ByPosition, np.ndarray]]) -> tuple[float, float]:
    """Return the ends of an axis for what many answers reach, 0 and some room.

    There is as much room as growth in proportion to t would take up to the last position.

    Args:
        curves: Statistics and the values to draw of them, [N].
    """
    filled = [(part, values) for part, values in curves if part.common.any()]
    if not filled:
        return 0.0, 0.01
    every = np.concatenate([np.zeros(1), *(values[part.common] for part, values in filled)])
    low, high = float(every.min()), float(every.max())
    last = max(part.position[-1] for part, _ in filled)
    room = (last / max(part.position[part.common][-1] for part, _ in filled) - 0.7) * (high - low)
    return (low - room if low < 0 else 0.0), high + (room or 0.01)


def _short(number: float) -> str:
    return f"{number / 1000:g}k" if number >= 1000 else f"{number:g}"


def _thirds(run: Run) -> list[Curve]:
    assert run.positions is not None
    return [
        Curve(_span(batches), colour, run.positions.pool(batches))
        for batches, colour in zip(run.positions.thirds(), PARTS, strict=False)
    ]


def _span(batches: np.ndarray) -> str:
    first, last = batches[0], batches[-1]
    return f"batch {first}" if first == last else f"batches {first}–{last}"
