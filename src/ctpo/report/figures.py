"""The figures of a run over training. Without its data a function returns None."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ctpo.report import style
from ctpo.report.by_position import clip_rate, ratio_drift, ratio_spread
from ctpo.report.reading import Run, Scores

__all__ = [
    "accuracy",
    "clip_rate",
    "overlaid_accuracy",
    "panels",
    "ratio_drift",
    "ratio_spread",
    "training",
]

BATCH = "rollout batch"


def accuracy(run: Run, width: float = style.WIDTH) -> Figure | None:
    """Training reward by batch, and the evaluations with their intervals.

    Returns:
        The figure; None where there are neither rewards nor evaluations.
    """
    batches, rewards = run.series("reward/mean")
    if not len(batches) and not run.evaluations:
        return None
    figure = style.new_figure(width)
    axes = figure.add_subplot()
    if len(batches):
        axes.plot(batches, rewards, color=style.SKY, linewidth=1.6, label="training reward")
    # Apart by a hair, or one's bar hides the other's.
    hair = 0.004 * max([1.0, *batches, *(one.batch for one in run.evaluations.values())])
    looks = (("sampled", "o", style.BLUE, "-", -hair), ("greedy", "s", style.RED, "--", hair))
    for decoding, marker, colour, line, shift in looks:
        points = run.scores(decoding)
        samples = points[0][1].samples_per_problem if points else 0
        label = f"avg@{samples}" if decoding == "sampled" else "one answer"
        label = f"held-out problems, {decoding}, {label}"
        look = {"color": colour, "marker": marker, "linestyle": line, "label": label}
        _evaluations(axes, points, shift, look)
    return _dressed(figure, width, "Accuracy over training")


def overlaid_accuracy(runs: Sequence[tuple[str, str, Run]], width: float) -> Figure:
    """Sampled accuracy of several runs, with intervals, and their training rewards, thin.

    Args:
        runs: Name, colour and run.
        width: Of the figure, in inches.
    """
    figure = style.new_figure(width)
    axes = figure.add_subplot()
    for name, colour, run in runs:
        axes.plot(*run.series("reward/mean"), color=colour, linewidth=0.8, alpha=0.5)
        look = {"color": colour, "marker": "o", "label": name}
        _evaluations(axes, run.scores("sampled"), 0.0, look)
    return _dressed(figure, width, "Held-out accuracy, sampled; thin: training reward")


def _evaluations(
    axes: Axes, points: Sequence[tuple[int, Scores]], shift: float, look: dict[str, Any]
) -> None:
    if not points:
        return
    scores = [one.overall for _, one in points]
    # Distances from the mean to either end, never negative.
    below = [max(0.0, score.mean - score.low) for score in scores]
    above = [max(0.0, score.high - score.mean) for score in scores]
    axes.errorbar(
        [batch + shift for batch, _ in points],
        [score.mean for score in scores],
        yerr=[below, above],
        linewidth=1.4,
        markersize=6,
        capsize=4,
        **look,
    )


def _dressed(figure: Figure, width: float, title: str) -> Figure:
    (axes,) = figure.axes
    style.dress(axes, title=title, x=BATCH, y="share of right answers", size=style.type_size(width))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.get_ylim()[0] >= -0.1 and axes.get_ylim()[1] <= 1.1:
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    style.legend(axes, loc="best")
    return figure


PANELS = (
    ("response/length", "response length (tokens)"),
    ("entropy", "entropy (nats per token)"),
    ("kl/k3", "KL from the old policy (nats)"),
    ("ess", "effective sample size"),
    ("grad_norm", "gradient norm"),
    ("log_rho/std", r"std($\log\,\rho_t$), all positions"),
    ("tool/calls_per_response", "tool calls per response"),
    ("tool/error_rate", "share of programs that fail"),
    ("tool/failure_rate", "share the sandbox failed"),
)


def training(run: Run, width: float = style.WIDTH) -> Figure | None:
    """Small multiples of what else moves during training.

    Returns:
        The figure, with a panel for each metric that was written; None where there is none.
    """
    return panels([("", style.BLUE, run)], width)


def panels(runs: Sequence[tuple[str, str, Run]], width: float = style.WIDTH) -> Figure | None:
    """Draw `training` of several runs over each other.

    Args:
        runs: Name, colour and run.
        width: Of the figure, in inches.
    """
    every = [(t, [(c, run.series(name)) for _, c, run in runs]) for name, t in PANELS]
    shown = [panel for panel in every if any(len(batches) for _, (batches, _) in panel[1])]
    if not shown:
        return None
    columns = min(3 if width > style.NARROW else 2, len(shown))
    rows = -(-len(shown) // columns)
    figure = style.new_figure(width, (2.4 if width > style.NARROW else 1.7) * rows)
    for number, (title, lines) in enumerate(shown, start=1):
        axes = figure.add_subplot(rows, columns, number)
        for colour, (batches, values) in lines:
            axes.plot(batches, values, color=colour, linewidth=1.5)
        last_row = number > len(shown) - columns
        style.dress(axes, title="", x=BATCH if last_row else "", y="", size=9)
        small = 10 if width > style.NARROW else 8
        axes.set_title(title, loc="left", fontsize=small, color=style.INK)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.set_ylim(bottom=min([0.0, *(v for _, (_, values) in lines for v in values)]))
    return figure
