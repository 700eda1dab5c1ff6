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
# The same figure for a page of 400 pixels, where a figure made smaller could not be read.
NARROW = 3.9


def new_figure(width: float = WIDTH, height: float = HEIGHT) -> Figure:
    """An empty figure whose parts make room for each other."""
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.08)
    return Figure(figsize=(width, height), layout=layout, facecolor="white")


def type_size(width: float) -> float:
    """Return the size of a figure's type, points, by its width in inches."""
    return 11 if width > NARROW else 9


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
    handles, labels = axes.get_legend_handles_labels()
    figure = axes.get_figure(root=True)
    if figure is None or not handles:
        return
    if figure.get_figwidth() > NARROW:
        axes.legend(frameon=False, fontsize=size, labelcolor=INK, **options)
    else:  # there is no room among the lines
        options |= {"loc": "outside lower left", "fontsize": 8.5}
        figure.legend(handles, labels, frameon=False, labelcolor=INK, **options)
