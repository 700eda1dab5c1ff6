"""How every figure looks. Figures are made with matplotlib's object interface: no global state."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

# Okabe and Ito's palette, told apart with every common kind of colour blindness.
BLUE = "#0072B2"
ORANGE = "#E69F00"
GREEN = "#009E73"
RED = "#D55E00"
PURPLE = "#CC79A7"
SKY = "#56B4E9"
INK = "#222222"
GREY = "#767676"
FAINT = "#DDDDDD"

# Scaled to a README's 830 pixels, type of 11 points is then about as large as the text around it.
WIDTH = 9.0
HEIGHT = 4.4


def new_figure(width: float = WIDTH, height: float = HEIGHT) -> Figure:
    """An empty figure whose parts make room for each other."""
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.08)
    return Figure(figsize=(width, height), layout=layout, facecolor="white")


def dress(axes: Axes, *, title: str, x: str, y: str, size: float = 11) -> None:
    """Give axes the report's look."""
    axes.set_title(title, loc="left", fontsize=size + 2, fontweight="bold", color=INK, pad=10)
    axes.set_xlabel(x, fontsize=size, color=INK)
    axes.set_ylabel(y, fontsize=size, color=INK)
    axes.tick_params(labelsize=size - 1, color=GREY, labelcolor=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)


def legend(axes: Axes, size: float = 10, **options: Any) -> None:  # noqa: ANN401
    """Add a legend without a frame, unless there is nothing to explain.

    Args:
        axes: The axes.
        size: Type size, points.
        **options: Passed on to `Axes.legend`.
    """
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=size, labelcolor=INK, **options)
