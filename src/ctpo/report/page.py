"""The run's page: one HTML file with everything in it."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ctpo.report.examples import SHADES, examples
from ctpo.report.gallery import KINDS, narrow, save_figures
from ctpo.report.outcome import verdict
from ctpo.report.reading import Run, read_run
from ctpo.report.tables import BeforeAfter, checks, compare, phases, signed
from ctpo.report.words import TERMS, alts, commands, facts, notes


def write_report(run_dir: Path | str) -> Path:
    """Draw a run's figures into `figures/` and write its page, `report.html`.

    The page needs no network: figures and style are inside it.

    Args:
        run_dir: A run directory. `recipe.toml` and `metrics.jsonl` are required; for every other
            file that is absent the page says what it cannot show.

    Returns:
        The page.

    Raises:
        ReportError: A required file is missing, or a file cannot be read; the message names it.
    """
    run = read_run(run_dir)
    figures = {name: data_uris(file) for name, file in save_figures(run).items()}
    comparison = _comparison(run)
    html = (
        environment()
        .get_template("report.html.jinja")
        .render(
            name=run.path.resolve().name,
            verdict=verdict(run),
            facts=facts(run),
            batches=len(run.metrics),
            updates=max((line.get("step", 0) for line in run.metrics), default=0),
            headline=[row for row in comparison if row.source == "all"],
            comparison=comparison,
            samples={
                decoding: scores.samples_per_problem
                for evaluation in run.evaluations.values()
                for decoding, scores in evaluation.decodings.items()
            },
            terms=TERMS,
            kinds=KINDS,
            figures=figures,
            alts=alts(run),
            notes=notes(run),
            phases=phases(run),
            checks=checks(run),
            recipe=run.recipe,
            environment=None if run.environment is None else _lines(run.environment),
            examples=examples(run.path),
            shades=SHADES,
            commands=commands(run),
        )
    )
    page = run.path / "report.html"
    page.write_text(html, encoding="utf-8")
    return page


def _comparison(run: Run) -> list[BeforeAfter]:
    start, final = run.evaluations.get("start"), run.evaluations.get("final")
    return [] if start is None or final is None else compare(start, final)


def environment() -> Environment:
    """Return what renders the pages' templates."""
    # Transcripts are whatever a model wrote: everything is escaped unless it is said to be safe.
    made = Environment(
        loader=PackageLoader("ctpo.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"duration": _duration, "signed": signed}
    return made


def data_uri(svg: Path) -> str:
    """Return a figure as it is put into a page."""
    # An image of its own keeps one figure's identifiers out of another's.
    return "data:image/svg+xml;base64," + base64.b64encode(svg.read_bytes()).decode("ascii")


def data_uris(svg: Path) -> tuple[str, str]:
    """Return a figure and its narrow form as they are put into a page."""
    return data_uri(svg), data_uri(narrow(svg))


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _lines(environment: dict[str, object]) -> list[tuple[str, str]]:
    """Nested values as one line each, `packages.torch` and its version."""
    lines = []
    for name, value in environment.items():
        if isinstance(value, dict):
            lines += [(f"{name}.{inner}", text) for inner, text in _lines(value)]
        else:
            lines.append((name, value if isinstance(value, str) else json.dumps(value)))
    return lines
