"""studies/theory.py measures what was compared, and places it by what the files say."""

import json
import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "studies/theory.py"
THEORY = runpy.run_path(str(SCRIPT))
METHODS = list(THEORY["STUDY"].methods)


def test_what_is_measured_are_the_settings_that_the_tuning_chose():
    cells = THEORY["cells"]()
    assert [cell.method for cell in cells] == METHODS
    for cell in cells:
        assert cell.recipe.optimization.learning_rate == 1e-4 and cell.seed == 0
        narrow = cell.method in ("grpo-narrow", "no-clip")
        assert cell.tuned["clip"] == ("narrow" if narrow else "wide")


@pytest.fixture
def file(tmp_path):
    """Two points of measurement, in both of which variance rises with the place in the list."""
    rows = [
        {
            "run": "ctpo",
            "after": after,
            "kl": 0.1,
            "objectives": {
                method: {
                    "over_full": factor * 2.0**place,
                    "effective": 0.5 - 0.01 * place,
                    "clipped": 0.25 * factor,
                }
                for place, method in enumerate(METHODS)
            },
        }
        for after, factor in ((2, 0.5), (8, 2.0))
    ]
    path = tmp_path / "theory.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_methods_are_placed_by_geometric_mean_variance_and_mean_outcome(file):
    placed = THEORY["placed"](file)
    assert list(placed) == METHODS
    for place, method in enumerate(METHODS):
        assert placed[method][:2] == pytest.approx((2.0**place, 0.5 - 0.01 * place))
    assert placed["gspo"][2] == pytest.approx(0.804, abs=5e-4)  # as in docs/studies.md
    row = next(row for row in THEORY["table"](file).rows if row[0] == "ctpo")
    assert row[-2:] == ("31%", "79.7")


def test_ranks_alone_decide_the_correlation(file):
    by_variance, p = THEORY["rank_correlation"](file, 0)
    by_size, _ = THEORY["rank_correlation"](file, 1)
    assert by_size == pytest.approx(-by_variance) and 0 < p <= 1
    outcomes = [THEORY["placed"](file)[method][2] for method in METHODS]
    order = sorted(outcomes)
    gaps = sum((place - order.index(x)) ** 2 for place, x in enumerate(outcomes))
    assert by_variance == pytest.approx(1 - 6 * gaps / (9 * 80))


def test_the_figure_names_every_method(file, tmp_path):
    figure = THEORY["figure"](file)
    for axes in figure.axes:
        assert {text.get_text() for text in axes.texts} == set(METHODS)
