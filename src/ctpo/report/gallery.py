"""The figures as they stand in the report: their names, how to read them, their files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from ctpo.report import figures, style
from ctpo.report.reading import Run


@dataclass(frozen=True)
class Kind:
    """A figure as it stands in the report.

    Attributes:
        name: File name without its ending.
        title: Heading.
        reading: How to read it.
        needs: The file it is drawn from.
        draw: Makes it, as wide as it is told, in inches.
    """

    name: str
    title: str
    reading: str
    needs: str
    draw: Callable[[Run, float], Figure | None]


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
        "with position as fast as the ratios spread. Bands are 95 % intervals over batches, here "
        "and below.",
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
        "What else moved, one value per rollout batch. The effective sample size is the share of "
        "tokens that the weights leave to count.",
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
    png = folder / f"{name}.png"
    figure.savefig(png, dpi=160)
    figure.set_layout_engine("none")  # it is laid out, and need not be again
    return png, _save_svg(figure, folder, name)


def _save_svg(figure: Figure, folder: Path, name: str) -> Path:
    svg = folder / f"{name}.svg"
    # Without these two the same figure would be another file every time.
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(svg, metadata={"Date": None})
    return svg


def save_both(draw: Callable[[float], Figure | None], folder: Path, name: str) -> Path | None:
    """Draw a figure for wide pages and for narrow ones and write both.

    Args:
        draw: Makes it, as wide as it is told.
        folder: Where to; it is made if need be.
        name: File name without its ending.

    Returns:
        The wide SVG, beside which are its PNG and the narrow SVG (see `narrow`); None where there
        is nothing to draw.
    """
    wide, small = draw(style.WIDTH), draw(style.NARROW)
    if wide is None or small is None:
        return None
    _, svg = save(wide, folder, name)
    _save_svg(small, folder, narrow(svg).stem)
    return svg


def narrow(svg: Path) -> Path:
    """Return where the narrow figure is that belongs to a wide one."""
    return svg.with_name(f"{svg.stem}-narrow.svg")


def save_figures(run: Run) -> dict[str, Path]:
    """Draw all figures that the run has data for, into its `figures/`.

    Returns:
        The SVG files by the figures' names.
    """
    files = {}
    for kind in KINDS:
        svg = save_both(partial(kind.draw, run), run.path / "figures", kind.name)
        if svg is not None:
            files[kind.name] = svg
    return files
