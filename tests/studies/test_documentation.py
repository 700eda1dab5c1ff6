"""The study files at the root can be run, and docs/studies.md says what came out of them."""

import re
import tomllib
from pathlib import Path

import pytest
import torch

from ctpo.objective import PRESETS
from ctpo.studies.cells import check_recipes, tuning_cells
from ctpo.studies.results import read_results
from ctpo.studies.study import Study, load_study
from ctpo.studies.tables import tables
from ctpo.theory.tables import documented
from tests.cli.test_cli import ctpo

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "studies").glob("*.toml"))
RESULTS = sorted((ROOT / "docs" / "data" / "studies").glob("*.parquet"))
PAGE = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def file(request):
    return request.param


def test_the_promised_studies_are_there():
    assert {"table2-tiny", "windows", "headroom"} <= {file.stem for file in FILES}
    assert all(load_study(file).name == file.stem for file in FILES)


def test_a_study_can_be_listed_and_its_size_is_that_of_the_page(file, tmp_path):
    study = load_study(file)
    tuning, test = len(tuning_cells(study, file.parent)), check_recipes(study, file.parent)
    shown = ctpo("study", "run", file, "--dry-run", home=tmp_path).output
    assert f"tuning      {tuning} cells" in shown and f"test        {test} cells" in shown
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{file.name}`"))
    assert row.split("|")[3].strip() == f"{tuning} + {test}"
    assert not any(tmp_path.iterdir())


def test_a_result_has_ten_seeds_and_the_headroom_eight(file):
    assert len(load_study(file).seeds) >= (8 if file.stem == "headroom" else 10)


def test_every_method_of_the_main_table_is_in_it_with_its_controls():
    study = load_study(ROOT / "studies" / "table2-tiny.toml")
    named = {"ctpo", "ctpo-fixed", "full-sequence", "grpo", "gspo", "cispo", "pnpo"}
    assert named <= PRESETS.keys() and named | {"no-clip", "grpo-narrow"} <= study.methods.keys()
    # GRPO's narrow window, the control's and CTPO's own are one.
    methods = ("ctpo", "grpo", "grpo-narrow")
    recipes = [study.recipe_of(ROOT, method, {"clip": "narrow"}, 0) for method in methods]
    ctpos, grpos, control = [recipe.objective.build().window for recipe in recipes]
    assert ctpos is not None and grpos is not None and grpos == control
    one = torch.ones(())
    mine, theirs = ctpos.bounds(one), grpos.bounds(one)
    assert mine.low.item() == pytest.approx(theirs.low.item(), rel=0.01)
    assert mine.high.item() == pytest.approx(theirs.high.item(), rel=0.01)


def test_the_example_of_the_page_is_a_study(tmp_path):
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    study = Study.model_validate(tomllib.loads(example))
    assert check_recipes(study, tmp_path) == 3 * 2 * 10
    assert len(tuning_cells(study, tmp_path)) == (4 + 4 + 2) * 2


def test_the_words_of_the_page_are_those_of_the_code():
    fields = Study.model_fields
    collapse = fields["collapse"].default
    assert (collapse.accuracy, collapse.kl, collapse.ess) == (0.5, 2.0, 0.1)
    assert "below half of the first" in PAGE and "above 2 nats" in PAGE and "a tenth of" in PAGE


@pytest.mark.parametrize("results", RESULTS, ids=lambda file: file.stem)
def test_the_tables_of_the_page_are_those_of_the_recorded_results(results):
    study = load_study(ROOT / "studies" / f"{results.stem}.toml")
    for reference in (study.reference, "ctpo"):
        found = tables(study.compared_with(reference), read_results(results))
        assert all(f"<!-- table: {table.name} -->" in PAGE for table in found)
        assert documented(PAGE, found) == PAGE


def test_the_page_claims_nothing_before_there_are_results():
    recorded = RESULTS or list((ROOT / "docs/data/studies").glob("*.jsonl"))
    assert recorded or PAGE.splitlines()[2].startswith("**No result is in yet.**")
    assert sum(file.stat().st_size for file in RESULTS) < 2_000_000
