"""Every field of a recipe has a fate on verl, and what verl cannot do is refused by name."""

from pathlib import Path

import pytest

from ctpo.training.recipe.loading import load_recipe
from ctpo.training.verl.fields import (
    FIELDS,
    Irrelevant,
    Mapped,
    Ours,
    Refused,
    field_names,
    refuse,
    table,
)

ON_VERL = [
    "engine=verl",
    "optimization.schedule=constant",
    "optimization.warmup_fraction=0",
    "verl.gpus_per_node=1",
]


def test_every_field_has_exactly_one_fate():
    assert sorted(field_names()) == sorted(FIELDS)
    for name, fate in FIELDS.items():
        assert isinstance(fate, Mapped | Ours | Irrelevant | Refused), name
        assert all(vars(fate).values()) or isinstance(fate, Refused), name


@pytest.mark.parametrize(
    ("start", "change", "field"),
    [
        (["tiny", *ON_VERL], "optimization.schedule=linear", "optimization.schedule"),
        (["tiny", *ON_VERL], "optimization.warmup_fraction=0.1", "optimization.warmup_fraction"),
        (["qwen3-4b"], "model.lora.rank=16", "model.lora.rank"),
        (["tiny", *ON_VERL], "rewards={grade=0.5}", "rewards"),
        (["qwen3-4b"], 'rollout.tools=["own:tool"]', "rollout.tools"),
        (["tiny", *ON_VERL], "rollout.generator=own:generator", "rollout.generator"),
    ],
)
def test_what_verl_cannot_do_is_refused_by_name(start, change, field):
    recipe = load_recipe(start[0], [*start[1:], change])
    with pytest.raises(ValueError, match=rf"{field} is .*; on verl it must be"):
        refuse(recipe)


def test_every_refusal_is_tried():
    refused = {name for name, fate in FIELDS.items() if isinstance(fate, Refused)}
    lora = {f"model.lora.{name}" for name in ("rank", "alpha", "target_modules")}
    own = {"rewards", "rollout.tools", "rollout.generator"}
    assert refused == {"optimization.schedule", "optimization.warmup_fraction"} | lora | own


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["rollout.prompts_per_batch=24", "optimization.micro_batch=4"],
            "updates_per_batch is 16; on verl it must divide rollout.prompts_per_batch, 24",
        ),
        (["optimization.micro_batch=8", "verl.gpus_per_node=2"], "the 4 responses of an update on"),
        (["verl.gpus_per_node=3"], "an update takes 8 responses, which 3 GPUs cannot share"),
        (["verl.tensor_parallel=3"], "verl.tensor_parallel is 3; it must divide the 1 GPUs"),
        (
            ["verl.gpus_per_node=2", "verl.sequence_parallel=2", "verl.packed=false"],
            "sequence_parallel is 2; it needs verl.packed",
        ),
    ],
)
def test_uneven_batches_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        refuse(load_recipe("tiny", [*ON_VERL, *changes]))


def test_the_twins_differ_in_the_objective_and_in_nothing_else():
    for size in ("qwen3-4b", "qwen3-14b"):
        parent = load_recipe(size).model_dump()
        for method, low, high in (("grpo", 0.2, 0.28), ("gspo", 3e-4, 4e-4)):
            twin = load_recipe(f"{size}-{method}").model_dump()
            assert {key for key in twin if twin[key] != parent[key]} == {"name", "objective"}
            ours, theirs = twin["objective"], parent["objective"]
            changed = {key for key in ours if ours[key] != theirs[key]}
            assert changed == {"preset", "clip_low", "clip_high"}
            assert (ours["preset"], ours["clip_low"], ours["clip_high"]) == (method, low, high)


def test_the_larger_model_is_the_only_change_of_its_recipe():
    small, large = load_recipe("qwen3-4b").model_dump(), load_recipe("qwen3-14b").model_dump()
    assert {key for key in large if large[key] != small[key]} == {"name", "model"}
    assert {k for k in large["model"] if large["model"][k] != small["model"][k]} == {"path"}


def test_the_documentation_has_the_table():
    page = (Path(__file__).parents[3] / "docs/verl.md").read_text()
    begin, end = "<!-- fields -->\n", "<!-- end of fields -->"
    assert begin in page
    assert page.split(begin)[1].split(end)[0] == table()
