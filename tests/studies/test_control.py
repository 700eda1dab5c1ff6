"""The tables of docs/studies.md are those of the runs in docs/data/studies."""

import runpy
from pathlib import Path

import pytest

from ctpo.theory.tables import documented

ROOT = Path(__file__).parents[2]
CONTROL = runpy.run_path(str(ROOT / "studies/control.py"))
FILES = [
    file for task in CONTROL["TASKS"] if (file := ROOT / f"docs/data/studies/{task}.jsonl").exists()
]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_pages_tables_are_made_of_the_recorded_runs(file):
    page = (ROOT / "docs/studies.md").read_text()
    tables = [*CONTROL["tables"](file.stem, file)]
    if f"<!-- table: {file.stem}-published -->" in page:
        tables += CONTROL["tables"](file.stem, file, published=True)
    for table in tables:
        assert f"<!-- table: {table.name} -->" in page
    assert documented(page, tables) == page
