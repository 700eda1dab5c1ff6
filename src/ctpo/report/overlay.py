"""Several runs over each other: a page of them, and in words how two of them differ."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ctpo.report import style
from ctpo.report.by_position import CLIP, DRIFT, SPREAD, Curve, Quantity, draw
from ctpo.report.figures import overlaid_accuracy, panels
from ctpo.report.gallery import save_both
from ctpo.report.outcome import change, verdict
from ctpo.report.page import data_uris, environment
from ctpo.report.reading import ReportError, Run, read_run

COLOURS = (style.BLUE, style.RED, style.GREEN, style.PURPLE, style.ORANGE, style.SKY, style.GREY)
_Runs = Sequence[tuple[str, str, Run]]


def write_overlay(run_dirs: Sequence[Path | str], page: Path) -> Path:
    """Write one page with the curves of several runs in the same figures.

    It needs no network, as `write_report`'s.

    Args:
        run_dirs: Two to seven run directories; the first is what the others are compared with.
        page: The file to write.

    Returns:
        The page.

    Raises:
        ReportError: A run cannot be read, or there are more than can be told apart.
    """
    if len(run_dirs) > len(COLOURS):
        raise ReportError(
            f"{len(run_dirs)} runs are more than can be told apart in a figure; give at most "
            f"{len(COLOURS)}"
        )
    runs = [read_run(path) for path in run_dirs]
    names = [run.path.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run.path) for run in runs]
    coloured = list(zip(names, COLOURS, runs, strict=False))
    with tempfile.TemporaryDirectory() as folder:
        figures = list(_figures(coloured, Path(folder)))
    against = f"last against {names[0]}"
    accuracy = [
        (
            name,
            run.state,
            *(ends[i][1].overall if (ends := run.scores("sampled")) else "–" for i in (0, -1)),
            "" if run is runs[0] else _against(runs[0], run),
        )
        for name, _, run in coloured
    ]
    tables = [
        ("Held-out accuracy", ("run", "state", "first", "last", against), accuracy),
        (
            "What differs between their recipes",
            ("key", *names),
            [(key, *values) for key, values in differing(runs)] or [("nothing",)],
        ),
    ]
    template = environment().get_template("overlay.html.jinja")
    lines = [(name, colour, verdict(run)) for name, colour, run in coloured]
    page.write_text(template.render(lines=lines, tables=tables, figures=figures), "utf-8")
    return page


def differing(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return the keys that the runs' recipes do not agree in, with each one's value as text."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    table = [(key, [_text(run.settings.get(key)) for run in runs]) for key in keys]
    return [(key, values) for key, values in table if len(set(values)) > 1]


def comparison(first: Run, second: Run) -> list[str]:
    """Say line by line what two runs differ in: recipes, then accuracy after training."""
    lines = [f"{key}: {one} → {other}" for key, (one, other) in differing([first, second])]
    lines += [f"{run.path}: {verdict(run)}" for run in (first, second)]
    return [*lines, f"after training, second less first: {_against(first, second)}"]


def _against(first: Run, second: Run) -> str:
    if not first.evaluations or not second.evaluations:
        return "cannot be compared, as one was not evaluated"
    one, other = (list(run.evaluations.values())[-1] for run in (first, second))
    found = change(one, other)
    if found is None:
        return "cannot be compared, as one has no sampled answers"
    if found.paired:
        return f"{found}, problem by problem"
    return f"{found}, as if on different problems: not both runs recorded scores by the same ones"


def _figures(runs: _Runs, folder: Path) -> Iterator[dict[str, Any]]:
    draws: list[tuple[str, str, Callable[[float], Figure | None]]] = [
        (
            "accuracy",
            "Held-out accuracy with 95 % intervals over problems, and training rewards.",
            partial(overlaid_accuracy, runs),
        )
    ]
    draws += [
        (
            quantity.name,
            f"{quantity.title}, over each whole run, with 95 % intervals over its batches.",
            partial(_by_position, runs, quantity),
        )
        for quantity in (CLIP, SPREAD, DRIFT)
    ]
    draws.append(("training", "What else moved, one value per batch.", partial(panels, runs)))
    for name, reading, make in draws:
        svg = save_both(make, folder, name)
        if svg is not None:
            alt = f"{reading} Runs: {', '.join(run for run, _, _ in runs)}."
            yield {"uris": data_uris(svg), "alt": alt, "reading": reading}


def _by_position(runs: _Runs, quantity: Quantity, width: float) -> Figure | None:
    curves = [
        Curve(name, colour, run.positions.pool())
        for name, colour, run in runs
        if run.positions is not None
    ]
    if not curves:
        return None
    figure, axes = draw(curves, quantity, width)
    style.legend(axes, loc="best")
    return figure


def _text(value: Any) -> str:  # noqa: ANN401
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value)
