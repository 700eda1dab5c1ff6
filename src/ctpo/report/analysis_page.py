"""The page of an analysis: one HTML file with everything in it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from ctpo.disk import write_text
from ctpo.report.analysis import HEADINGS, MARKS, Analysis
from ctpo.report.gallery import KINDS
from ctpo.report.page import data_uri, environment


def write_analysis(analyses: Sequence[Analysis], page: Path) -> None:
    """Write the page of an analysis, or of the several of a run.

    Args:
        analyses: What to show.
        page: The file; replaced if it exists.
    """
    readings = {kind.name: kind for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        parts = [
            (one, [(readings[png.stem], data_uri(png.with_suffix(".svg"))) for png in drawn])
            for number, one in enumerate(analyses)
            for drawn in [one.draw(Path(folder) / str(number))]
        ]
    template = environment().get_template("analysis.html.jinja")
    html = template.render(parts=parts, headings=HEADINGS, marks=MARKS)
    page.parent.mkdir(parents=True, exist_ok=True)
    write_text(page, html)
