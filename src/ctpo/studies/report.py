"""The report of a study, from its directory alone."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow.parquet as pq

from ctpo.report.gallery import save
from ctpo.report.page import data_uri, environment
from ctpo.studies.directory import StudyDirectory
from ctpo.studies.figures import FIGURES
from ctpo.studies.results import collect, results
from ctpo.studies.study import StudyError
from ctpo.studies.tables import tables, versions
from ctpo.theory.tables import shown


def write_study_report(path: Path, reference: str | None = None) -> Path:
    """Write `results.parquet`, `tables.md`, `figures/` and the page `report.html`.

    Args:
        path: The study's directory.
        reference: The method that the others are compared with; None takes the study's.

    Returns:
        The page.

    Raises:
        StudyError: There is nothing to report yet, or no such method.
        ReportError: A run's files cannot be read.
    """
    directory = StudyDirectory.open(path)
    study = directory.study.compared_with(reference)
    table = collect(path, study)
    pq.write_table(table, path / "results.parquet")
    runs = results(table.to_pylist())
    done = sum(run.phase == "test" and not run.failed for run in runs)
    if not done:
        raise StudyError(f"{path} has no run of the test that is done; see `ctpo study run`")
    found = [*tables(study, runs), versions(runs)]
    parts = [f"## {one.title}\n\n{one.markdown()}" for one in found]
    (path / "tables.md").write_text("\n".join(parts), encoding="utf-8")
    figures = []
    for name, (draw, reading) in FIGURES.items():
        figure = draw(study, runs)
        if figure is not None:
            _, svg = save(figure, path / "figures", name)
            figures.append({"name": name, "reading": reading, "uri": data_uri(svg)})
    template = environment().get_template("study.html.jinja")
    html = template.render(
        study=study,
        digest=directory.digest,
        done=done,
        expected=math.prod([len(levels) for levels in study.axes.values()])
        * len(study.methods)
        * len(study.seeds),
        failures=[run for run in runs if run.failed],
        tables=found,
        figures=figures,
        shown=shown,
        source=(path / "study.toml").read_text(encoding="utf-8"),
    )
    page = path / "report.html"
    page.write_text(html, encoding="utf-8")
    return page
