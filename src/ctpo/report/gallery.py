"""The figures as they stand in the report: their names, how to read them, their files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from ctpo.report import figures
from ctpo.report.reading import Run


@dataclass(frozen=True)
class Kind:
    """A figure as it stands in the report.

    Attributes:
        name: File name without its ending.
        title: Heading.
        reading: How to read it.
        needs: The file it is drawn from.
        draw: Makes it.
    """

    name: str
    title: str
    reading: str
    needs: str
    draw: Callable[[Run], Figure | None]


KINDS = (
    Kind(
        "accuracy",
        "Accuracy",
        "The line is the mean reward of each batch on training problems; points are evaluations "
        "on held-out problems, their bars 95 % intervals over problems.",
        "metrics.jsonl",
        figures.accuracy,
    ),
    Kind(
        "clip-rate",
        "Clip rate",
        "A token beyond its window gives no gradient; a flat total means that the window widens "
        "with position as fast as the ratios spread.",
        "positions.parquet",
        figures.clip_rate,
    ),
    Kind(
        "ratio-spread",
        "Ratio spread",
        "log ρₜ adds up t token log-ratios: where those are independent the spread follows the "
        "dashed σ̂√t, where neighbouring tokens move together it grows faster.",
        "positions.parquet",
        figures.ratio_spread,
    ),
    Kind(
        "ratio-drift",
        "Ratio drift",
        "A policy that moves away from the one that sampled makes its samples less likely on "
        "average, so the mean falls with t, by the KL divergence of the first t tokens.",
        "positions.parquet",
        figures.ratio_drift,
    ),
    Kind(
        "training",
        "Training",
        "What else moved, one value per rollout batch.",
        "metrics.jsonl",
        figures.training,
    ),
)


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write a figure as PNG and as SVG.

    Args:
        figure: The figure.
        folder: Where to; it is made if need be.
        name: File name without its ending.

    Returns:
        The PNG file and the SVG file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    figure.savefig(png, dpi=160)
    # Without these two the same figure would be another file every time.
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(svg, metadata={"Date": None})
    return png, svg


def save_figures(run: Run) -> dict[str, Path]:
    """Draw all figures that the run has data for, into its `figures/`.

    Returns:
        The SVG files by the figures' names.
    """
    files = {}
    for kind in KINDS:
        figure = kind.draw(run)
        if figure is not None:
            _, files[kind.name] = save(figure, run.path / "figures", kind.name)
    return files
