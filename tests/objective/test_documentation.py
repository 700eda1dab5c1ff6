"""The table of methods in the documentation is the code's."""

from pathlib import Path

import pytest

from ctpo.objective import METHODS

PAGE = (Path(__file__).parents[2] / "docs" / "objective.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", METHODS)
def test_the_page_says_of_each_method_what_the_code_says(name):
    method = METHODS[name]
    row = (
        f"| `{name}` | {method.formula} | {method.source} | `{method.reduction}` | "
        f"`{method.advantages}` |"
    )
    assert row in PAGE
    assert not method.note or f"- `{name}`: {method.note}" in PAGE


def test_the_page_has_no_method_that_the_code_has_not():
    rows = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == list(METHODS)
