"""Tables of results: numbers with names, as Markdown for people and as lists for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# In float64, sums over a million trajectories are this exact; what is below is shown as zero.
ROUNDING = 1e-12

Cell = str | int | float


@dataclass(frozen=True)
class Table:
    """A table with a name.

    Attributes:
        name: Short, for files and for the markers in the documentation.
        title: What it shows.
        columns: Headings.
        rows: Cells: text, integers and floats.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"a row of table {self.name!r} has {len(row)} cells; it must have one for each "
                    f"of {', '.join(self.columns)}"
                )

    def markdown(self) -> str:
        """Return the table in Markdown, numbers to three digits."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        # A bar within a cell would end it.
        cells = [[shown(cell).replace("|", "\\|") for cell in line] for line in lines]
        return "".join(f"| {' | '.join(line)} |\n" for line in cells)

    def to_dict(self) -> dict[str, Any]:
        """Return name, title, columns and rows, ready for JSON."""
        return {
            "name": self.name,
            "title": self.title,
            "columns": list(self.columns),
            "rows": [list(row) for row in self.rows],
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Table:
        """Return the table that `to_dict` gave.

        Args:
            content: What `to_dict` gave.
        """
        rows = tuple(tuple(row) for row in content["rows"])
        return cls(content["name"], content["title"], tuple(content["columns"]), rows)


def shown(cell: Cell) -> str:
    """Return a cell as it is printed.

    Args:
        cell: Text, an integer, or a float, which is rounded to three digits.
    """
    if isinstance(cell, float):
        if abs(cell) < ROUNDING:
            return "< 1e-12"
        return f"{cell:.3g}"
    return str(cell)


def with_interval(value: float, low: float, high: float) -> str:
    """Return a number with its 95 % interval."""
    return f"{value:.3g} ({low:.2g}–{high:.2g})"


def documented(text: str, tables: Sequence[Table]) -> str:
    """Return a page with its tables brought up to date.

    A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`.

    Args:
        text: The page.
        tables: What is to stand there, found by name; others stay as they are.
    """
    for table in tables:
        head, marker, rest = text.partition(f"<!-- table: {table.name} -->\n")
        if marker:
            _, end, tail = rest.partition("<!-- end of table -->")
            text = f"{head}{marker}\n{table.markdown()}\n{end}{tail}"
    return text
