"""`ctpo plan`: its tables stand in the documentation, and wrong assumptions are refused by name."""

import re
from pathlib import Path

import pytest
import torch

from ctpo.objective import preset
from ctpo.training.plan import OBJECTIVE_FLOATS, Assumptions, plan, shape_of, table
from ctpo.training.recipe.loading import load_recipe

DOCS = Path(__file__).parents[2] / "docs/scale.md"
TABLE = re.compile(r"<!-- ctpo plan (\S+)((?: --gpus \d+)+) -->\n\n(.*?)\n\n<!-- end -->", re.S)


def test_the_tables_of_the_documentation_are_what_the_command_prints():
    found = TABLE.findall(DOCS.read_text(encoding="utf-8"))
    assert [name for name, _, _ in found] == ["qwen3-4b", "qwen3-14b"]
    for name, options, text in found:
        gpus = [int(number) for number in re.findall(r"\d+", options)]
        assert table(load_recipe(name), gpus, Assumptions()) == text


def test_models_have_the_parameters_their_cards_name():
    sizes = [shape_of(load_recipe(name)).parameters for name in ("qwen3-4b", "qwen3-14b")]
    assert [round(size / 1e9, 1) for size in sizes] == [4.0, 14.8]


def test_more_gpus_help_until_the_longest_answer_and_the_smallest_update():
    rows = [
        dict((r[0], r[2]) for r in plan(load_recipe("qwen3-4b"), n, Assumptions()))
        for n in (1, 2, 256, 4096)
    ]
    assert rows[0]["generation"] == 2 * rows[1]["generation"]
    assert rows[0]["updates"] == pytest.approx(2 * rows[1]["updates"])
    assert rows[2]["updates"] == rows[3]["updates"]
    assert rows[3]["generation"] == rows[3]["longest answer alone"] == 8000 * 0.015


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("mfo=0.4", "mfo is unknown .did you mean 'mfu'"),
        ("mfu=2", "mfu is '2'"),
        ("mfu=nan", "mfu is 'nan'"),
        ("gpu_tflops=-1", "gpu_tflops is '-1'"),
        ("mfu", "mfu: write name=value"),
    ],
)
def test_wrong_assumptions_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        Assumptions.of([change])


def test_a_model_of_unknown_shape_is_refused(tmp_path):
    recipe = load_recipe("qwen3-4b", [f"model.path={tmp_path}"])
    with pytest.raises(ValueError, match="whose shape is not known.*name one of Qwen/Qwen3-4B"):
        plan(recipe, 8, Assumptions())


def test_the_objective_holds_at_most_the_floats_a_plan_says(make_batch):
    inputs = make_batch(64, 1024, holes=0.1)
    objective = preset("ctpo")
    objective(*inputs)
    with torch.profiler.profile(profile_memory=True) as profile:
        objective(*inputs).mean("seq-mean-token-mean").backward()
    now = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    assert 4 < peak / 4 / 64 / 1024 <= OBJECTIVE_FLOATS
