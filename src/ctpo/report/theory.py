"""Tables and figures of the theory on disk."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ctpo.report import style
from ctpo.report.gallery import save
from ctpo.theory import Table

LOOKS = {
    "token": (style.ORANGE, "-"),
    "cumulative": (style.BLUE, "-"),
    "full-sequence": (style.RED, "-"),
    "sequence-geometric-mean": (style.GREEN, "-"),
    "cumulative-geometric-mean": (style.PURPLE, "-"),
    "minimum-prefix": (style.GREY, "--"),
    "ctpo": (style.BLUE, "-"),
    "ctpo-fixed": (style.SKY, "--"),
    "ctpo-drift-free": (style.INK, ":"),
    "grpo": (style.ORANGE, "-"),
    "gspo": (style.GREEN, "-"),
    "cispo": (style.PURPLE, "--"),
}
KL = "policy distance: KL per token, nats"
Tables = Mapping[str, Table]


def write_tables(
    tables: Sequence[Table], folder: Path, name: str, *, settings: dict[str, Any] | None = None
) -> None:
    """Write tables as JSON and Markdown, and the figures that can be drawn from them.

    Args:
        tables: The tables.
        folder: Where to; it must exist. Figures go into its `figures/`.
        name: Of the files, without ending.
        settings: What they were computed with.
    """
    content = {"settings": settings or {}, "tables": [table.to_dict() for table in tables]}
    (folder / f"{name}.json").write_text(
        json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    parts = [f"## {table.title}\n\n{table.markdown()}" for table in tables]
    (folder / f"{name}.md").write_text("\n".join(parts), encoding="utf-8")
    by_name = {table.name: table for table in tables}
    for needed, figure_name, draw in FIGURES:
        if all(table in by_name and by_name[table].rows for table in needed):
            save(draw(by_name), folder / "figures", figure_name)


def read_tables(path: Path) -> tuple[list[Table], dict[str, Any]]:
    """Return the tables that `write_tables` wrote as JSON, and their settings."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return [Table.from_dict(table) for table in content["tables"]], content["settings"]


def recorded_tables(folder: Path) -> list[Table]:
    """Return the tables of recorded measurements, `theory-measured*.json`.

    What stands behind `theory-measured` in a file's name is put behind the names of its tables.
    """
    return [
        dataclasses.replace(table, name=table.name + file.stem.removeprefix("theory-measured"))
        for file in sorted(folder.glob("theory-measured*.json"))
        for table in read_tables(file)[0]
    ]


def bias_by_distance(tables: Tables) -> Figure:
    """Bias of every ratio without a window against both targets, by policy distance."""
    figure = style.new_figure(height=4.6)
    names = [
        "token",
        "cumulative",
        "full-sequence",
        "sequence-geometric-mean",
        "cumulative-geometric-mean",
        "minimum-prefix",
    ]
    for number, (table, title) in enumerate(
        (
            ("windows", "Token-level gradient, A given"),
            ("windows-terminal", "∇J, reward at the end"),
        ),
        start=1,
    ):
        axes = figure.add_subplot(1, 2, number)
        for name in names:
            x, y = _by_distance(tables[table], f"{name}, no window", 2)
            _line(axes, x, [max(v, 1e-16) for v in y], name)
        axes.set_yscale("log")
        axes.set_xscale("log")
        style.dress(axes, title=title, x=KL, y="bias / norm of the target", size=10)
    axes.axhline(1e-12, color=style.GREY, linewidth=0.8)
    style.legend(figure.axes[0], size=8, loc="center right")
    return figure


def windows_by_distance(tables: Tables) -> Figure:
    """Bias bought and variance saved by windows, by policy distance."""
    figure = style.new_figure(height=4.6)
    names = ("ctpo", "ctpo-fixed", "ctpo-drift-free", "grpo", "gspo", "cispo")
    panels = ((2, "bias / norm of the target"), (3, "variance / on-policy variance"))
    for number, (column, label) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, 2, number)
        for name in names:
            _line(axes, *_by_distance(tables["windows"], name, column), name)
        x, y = _by_distance(tables["windows"], "cumulative, no window", column)
        if column == 3:
            axes.plot(x, y, color=style.INK, linewidth=1, label="cumulative, no window")
        axes.set_xscale("log")
        style.dress(axes, title=label, x=KL, y="", size=10)
        axes.set_ylim(bottom=0)
    style.legend(figure.axes[1], size=8, loc="upper left")
    return figure


def ratio_variance(tables: Tables) -> Figure:
    """Var ρ_t by position against the closed form, for independent and dependent tokens."""
    rows = tables["ratio-variance"].rows
    kinds = list(dict.fromkeys(str(row[0]) for row in rows))
    figure = style.new_figure(height=3.8)
    for number, kind in enumerate(kinds, start=1):
        part = [row for row in rows if row[0] == kind]
        axes = figure.add_subplot(1, len(kinds), number)
        t = [float(row[1]) for row in part]
        axes.plot(t, [float(r[3]) for r in part], color=style.BLUE, marker="o", label=r"Var ρ$_t$")
        axes.plot(
            t, [float(r[4]) for r in part], color=style.ORANGE, linestyle="--", label="∏(1+χ²) − 1"
        )
        axes.axhline(float(part[-1][3]), color=style.RED, linewidth=1.2, label=r"Var ρ$_H$")
        style.dress(axes, title=f"{kind}", x="position t", y="", size=10)
        axes.set_ylim(bottom=0)
    style.legend(figure.axes[0], size=9, loc="upper left")
    return figure


def drift(tables: Tables) -> Figure:
    """Share of log ρ_t and of the drift-free statistic outside the √t window."""
    figure = style.new_figure(height=4.0)
    axes = figure.add_subplot()
    rows = tables["drift"].rows
    t = [float(row[0]) for row in rows]
    for column, label, colour, line in (
        (3, r"log ρ$_t$ below −0.025√t", style.RED, "-"),
        (6, r"M$_t$ below −0.025√t", style.BLUE, "-"),
        (5, r"log ρ$_t$ above 0.05√t", style.RED, "--"),
        (7, r"M$_t$ above 0.05√t", style.BLUE, "--"),
    ):
        y = [float(row[column]) for row in rows]
        axes.plot(t, y, color=colour, linestyle=line, marker="o", markersize=4, label=label)
    axes.set_xscale("log")
    axes.set_ylim(0, 1)
    style.dress(
        axes, title="A window of √t on a statistic that drifts", x="position t", y="probability"
    )
    style.legend(axes, loc="upper left")
    return figure


def measured_positions(tables: Tables) -> Figure:
    """Var ρ_t and Var ρ_H by position on the real model, a panel for each distance."""
    rows = tables["measured-positions-all"].rows
    distances = list(dict.fromkeys(row[0] for row in rows))
    figure = style.new_figure(height=3.6)
    for number, distance in enumerate(distances, start=1):
        part = [row for row in rows if row[0] == distance]
        axes = figure.add_subplot(1, len(distances), number)
        t = [float(row[1]) for row in part]
        for column, label, colour in ((3, r"Var ρ$_t$", style.BLUE), (4, r"Var ρ$_H$", style.RED)):
            axes.plot(t, [float(row[column]) for row in part], color=colour, label=label)
        axes.set_yscale("log")
        style.dress(axes, title=f"{distance} apart", x="position t", y="", size=10)
    style.legend(figure.axes[0], size=9, loc="lower right")
    return figure


def measured_error(tables: Tables) -> Figure:
    """Variance of the gradient and its RMSE by policy distance, on the real model."""
    gradient, error = tables["measured-gradient"], tables["measured-error"]
    figure = style.new_figure(height=4.2)
    looks = {name: LOOKS[name] for name in list(LOOKS)[:4]} | {
        "no ratio": (style.GREY, ":"),
        "ctpo (preset)": (style.BLUE, "--"),
        "grpo (preset)": (style.ORANGE, "--"),
    }
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    wanted = error.columns.index("n = 256")
    for name, (colour, line) in looks.items():
        part = [row for row in gradient.rows if row[0] == name]
        x = [float(row[1]) for row in part]
        y = [float(str(row[2]).split(" ")[0]) for row in part]
        left.plot(x, y, color=colour, linestyle=line, marker="o", markersize=4, label=name)
        y = [float(row[wanted]) for row in error.rows if row[0] == name]
        right.plot(x, y, color=colour, linestyle=line, marker="o", markersize=4)
    for axes, title in (
        (left, "variance / on-policy variance"),
        (right, "RMSE at 256 trajectories"),
    ):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        style.dress(axes, title=title, x="batches of training apart", y="", size=10)
    style.legend(left, size=8, loc="upper left")
    return figure


FIGURES: tuple[tuple[tuple[str, ...], str, Callable[[Tables], Figure]], ...] = (
    (("windows", "windows-terminal"), "theory-bias", bias_by_distance),
    (("windows",), "theory-windows", windows_by_distance),
    (("ratio-variance",), "theory-ratio-variance", ratio_variance),
    (("drift",), "theory-drift", drift),
    (("measured-positions-all",), "theory-measured-positions", measured_positions),
    (("measured-gradient", "measured-error"), "theory-measured-gradient", measured_error),
)
"""Tables that a figure needs, its name, and what draws it."""


def _by_distance(table: Table, name: str, column: int) -> tuple[list[float], list[float]]:
    part = [row for row in table.rows if row[0] == name]
    return [float(row[1]) for row in part], [float(row[column]) for row in part]


def _line(axes: Axes, x: list[float], y: list[float], name: str) -> None:
    colour, line = LOOKS[name]
    axes.plot(x, y, color=colour, linestyle=line, marker="o", markersize=3.5, label=name)
