"""The figures of a run. Each function takes a run; without its data it returns None."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ctpo.report import style
from ctpo.report.positions import fit_spread
from ctpo.report.reading import Run, Score

BATCH = "rollout batch"
POSITION = "position t (tokens the policy wrote)"


def accuracy(run: Run) -> Figure | None:
    """Training reward by batch, and the evaluations with their intervals.

    Returns:
        The figure; None where there are neither rewards nor evaluations.
    """
    batches, rewards = run.series("reward/mean")
    if not len(batches) and not run.evaluations:
        return None
    figure = style.new_figure()
    axes = figure.add_subplot()
    if len(batches):
        axes.plot(batches, rewards, color=style.SKY, linewidth=1.6, label="training reward")
    # Apart by a hair, or one's bar hides the other's.
    hair = 0.004 * max([1.0, *batches, *(one.batch for one in run.evaluations.values())])
    looks = (("sampled", "o", style.BLUE, "-", -hair), ("greedy", "s", style.RED, "--", hair))
    for decoding, marker, colour, line, shift in looks:
        points = [
            (evaluation.batch, evaluation.decodings[decoding])
            for evaluation in run.evaluations.values()
            if decoding in evaluation.decodings
        ]
        if not points:
            continue
        scores = [point.overall for _, point in points]
        samples = points[0][1].samples_per_problem
        label = f"avg@{samples}" if decoding == "sampled" else "one answer"
        axes.errorbar(
            [batch + shift for batch, _ in points],
            [score.mean for score in scores],
            yerr=_error_bars(scores),
            color=colour,
            marker=marker,
            linestyle=line,
            linewidth=1.4,
            markersize=6,
            capsize=4,
            label=f"held-out problems, {decoding}, {label}",
        )
    style.dress(axes, title="Accuracy over training", x=BATCH, y="share of right answers")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.get_ylim()[0] >= -0.1 and axes.get_ylim()[1] <= 1.1:
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    style.legend(axes, loc="best")
    return figure


def ratio_spread(run: Run) -> Figure | None:
    """Standard deviation of log ρ_t against t, by thirds of training, with the fit σ̂√t.

    Returns:
        The figure; None without `positions.parquet`.
    """
    if run.positions is None:
        return None
    figure = style.new_figure()
    axes = figure.add_subplot()
    colours = (style.ORANGE, style.GREEN, style.BLUE)
    for batches, colour in zip(run.positions.thirds(), colours, strict=False):
        part = run.positions.pool(batches)
        if not len(part.position):
            continue
        fit = fit_spread(part)
        axes.plot(
            part.position,
            part.std,
            color=colour,
            linewidth=1.8,
            label=rf"{_span(batches)}:  $\hat\sigma$ = {fit.sigma:.4f}",
        )
        axes.plot(
            part.position,
            fit.sigma * np.sqrt(part.position),
            color=colour,
            linewidth=1.2,
            linestyle=(0, (4, 2)),
        )
    whole = run.positions.pool()
    if len(whole.position):
        free = fit_spread(whole).power
        note = r"fit $\hat\sigma\sqrt{t}$"
        if not np.isnan(free):
            note += rf"  (with the exponent free: $t^{{\,{free:.2f}}}$)"
        axes.plot([], [], color=style.GREY, linestyle=(0, (4, 2)), linewidth=1.2, label=note)
    style.dress(axes, title="Spread of the cumulative ratio", x=POSITION, y=r"std($\log\,\rho_t$)")
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    style.legend(axes, loc="best")
    return figure


def clip_rate(run: Run) -> Figure | None:
    """Share of tokens without gradient against position, by the bound they are beyond.

    Returns:
        The figure; None without `positions.parquet`.
    """
    if run.positions is None:
        return None
    pooled = run.positions.pool()
    figure = style.new_figure()
    axes = figure.add_subplot()
    lines = (
        (pooled.clip_total, "total", style.INK, 2.2, "-"),
        (pooled.clip_high, "above the window, A > 0", style.BLUE, 1.6, "-"),
        (pooled.clip_low, "below the window, A < 0", style.RED, 1.6, "-"),
        (pooled.clip_dual, "above the dual clip, A < 0", style.GREEN, 1.6, "--"),
    )
    for rate, label, colour, width, line in lines:
        # A bound that was never met, as when the dual clip is off, only clutters the legend.
        if rate.any():
            axes.plot(
                pooled.position, rate, color=colour, linewidth=width, linestyle=line, label=label
            )
    style.dress(axes, title="Clip rate by position", x=POSITION, y="share of tokens clipped")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylim(0, max(0.01, 1.25 * float(pooled.clip_total.max(initial=0))))
    axes.set_xlim(left=0)
    style.legend(axes, loc="upper left", ncols=2)
    return figure


def ratio_drift(run: Run) -> Figure | None:
    """Mean of log ρ_t against t, by thirds of training.

    Returns:
        The figure; None without `positions.parquet`.
    """
    if run.positions is None:
        return None
    figure = style.new_figure(height=3.6)
    axes = figure.add_subplot()
    axes.axhline(0, color=style.GREY, linewidth=1)
    colours = (style.ORANGE, style.GREEN, style.BLUE)
    for batches, colour in zip(run.positions.thirds(), colours, strict=False):
        part = run.positions.pool(batches)
        axes.plot(part.position, part.mean, color=colour, linewidth=1.8, label=_span(batches))
    style.dress(
        axes, title="Drift of the cumulative ratio", x=POSITION, y=r"mean of $\log\,\rho_t$"
    )
    axes.set_xlim(left=0)
    style.legend(axes, loc="best")
    return figure


_PANELS = (
    ("response/length", "response length (tokens)"),
    ("tool/calls_per_response", "tool calls per response"),
    ("tool/error_rate", "share of tool calls that fail"),
    ("entropy", "entropy (nats per token)"),
    ("log_rho/std", r"std($\log\,\rho_t$), all positions"),
    ("grad_norm", "gradient norm"),
)


def training(run: Run) -> Figure | None:
    """Small multiples of what else moves during training.

    Returns:
        The figure, with a panel for each metric that was written; None where there is none.
    """
    panels = [(title, *run.series(name)) for name, title in _PANELS]
    panels = [panel for panel in panels if len(panel[1])]
    if not panels:
        return None
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = style.new_figure(height=2.4 * rows)
    for number, (title, batches, values) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, number)
        axes.plot(batches, values, color=style.BLUE, linewidth=1.5)
        last_row = number > len(panels) - columns
        style.dress(axes, title="", x=BATCH if last_row else "", y="", size=9)
        axes.set_title(title, loc="left", fontsize=10, color=style.INK)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_ylim(bottom=min(0.0, float(values.min())))
    return figure


def _span(batches: np.ndarray) -> str:
    first, last = batches[0], batches[-1]
    return f"batch {first}" if first == last else f"batches {first}–{last}"


def _error_bars(scores: list[Score]) -> list[list[float]]:
    """Distances from the mean to either end, never negative, [2, N]."""
    return [
        [max(0.0, score.mean - score.low) for score in scores],
        [max(0.0, score.high - score.mean) for score in scores],
    ]
