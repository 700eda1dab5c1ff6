"""docs/theory.md says what the code computes."""

import re
from pathlib import Path

import pytest

from ctpo.report.theory import read_tables, recorded_tables, write_tables
from ctpo.theory import exact_tables

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "theory.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"<!-- table: (\S+) -->\n(.*?)<!-- end of table -->", re.S)
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?%?")


def on_page():
    return {name: rows(text) for name, text in BLOCK.findall(PAGE)}


def rows(markdown):
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]


def number(text):
    return float(text.rstrip("%"))


def same(found, expected):
    """Whether two tables agree: words to the letter, numbers to the last digit or so."""
    assert len(found) == len(expected)
    for line, other in zip(found, expected, strict=True):
        assert len(line) == len(other)
        for cell, wanted in zip(line, other, strict=True):
            assert NUMBER.sub("#", cell) == NUMBER.sub("#", wanted)
            for a, b in zip(NUMBER.findall(cell), NUMBER.findall(wanted), strict=True):
                # Another machine adds in another order; a share of 200 problems may move by one.
                assert number(a) == pytest.approx(
                    number(b), rel=0.02, abs=1.01 if a.endswith("%") else 0
                ), (cell, wanted)


@pytest.fixture(scope="module")
def exact():
    return exact_tables()


@pytest.mark.slow
def test_the_exact_tables_of_the_page_are_computed_again(exact):
    page = on_page()
    computed = {table.name: rows(table.markdown()) for table in exact}
    assert len(page.keys() & computed.keys()) >= 12
    for name in page.keys() & computed.keys():
        same(page[name], computed[name])


@pytest.mark.slow
def test_the_measured_tables_of_the_page_are_those_of_the_recorded_runs(exact):
    page = on_page()
    recorded = {t.name: rows(t.markdown()) for t in recorded_tables(DOCS / "data")}
    names = page.keys() - {table.name for table in exact}
    assert names and names <= recorded.keys()
    for name in names:
        assert page[name] == recorded[name]


@pytest.mark.slow
def test_every_table_has_its_figure_written_beside(exact, tmp_path):
    write_tables(exact, tmp_path, "exact", settings={"some": 1})
    tables, settings = read_tables(tmp_path / "exact.json")
    assert tables == exact and settings == {"some": 1}
    figures = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert figures == {"theory-bias", "theory-windows", "theory-ratio-variance", "theory-drift"}
    assert "## In rational arithmetic" in (tmp_path / "exact.md").read_text(encoding="utf-8")


def test_measured_figures_are_drawn_from_the_recorded_run(tmp_path):
    tables, _ = read_tables(DOCS / "data" / "theory-measured.json")
    write_tables(tables, tmp_path, "measured")
    figures = {path.stem for path in (tmp_path / "figures").glob("*.svg")}
    assert figures == {"theory-measured-positions", "theory-measured-gradient"}


def test_figures_of_the_page_are_there():
    for image in re.findall(r"\]\((images/theory-[^)]+)\)", PAGE):
        assert (DOCS / image).is_file()
