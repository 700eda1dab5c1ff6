"""What a study's file may say, and the cells that it leads to."""

import tomllib
from collections import Counter

import pytest
import tomli_w
import torch

from ctpo.objective import Objective
from ctpo.studies.cells import Trial, choose, result_cells, tuning_cells
from ctpo.studies.study import Study, StudyError, load_study

TUNED = """
[axes.updates]
2 = ["optimization.updates_per_batch=2"]
1 = ["optimization.updates_per_batch=1"]

[tuning]
seeds = [100, 101]

[tuning.axes.rate]
low = ["optimization.learning_rate=1e-4"]
high = ["optimization.learning_rate=4e-4"]

[tuning.axes.clip.published]
ctpo = []
grpo = []
none = []
[tuning.axes.clip.wide]
ctpo = ["objective.eps_low=0.05", "objective.eps_high=0.1"]
grpo = ["objective.clip_low=0.4", "objective.clip_high=0.4"]
none = []
"""


@pytest.fixture
def content(small):
    """The small study, with a tuning and a method that has nothing to clip with."""
    values = tomllib.loads(small + TUNED)
    values["methods"]["none"] = [
        "objective.preset=grpo",
        "objective.clip_low=1.0",
        "objective.clip_high=inf",
    ]
    return values


@pytest.fixture
def study(content):
    return Study.model_validate(content)


def load(tmp_path, content):
    file = tmp_path / "study.toml"
    file.write_text(tomli_w.dumps(content))
    return load_study(file)


def nested(path, value):
    def change(content):
        *parents, last = path.split("/")
        for parent in parents:
            content = content[parent]
        content[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (nested("seedz", [1]), ["seedz is unknown", "did you mean 'seeds'?"]),
        (nested("tuning/seed", [1]), ["tuning.seed is unknown", "did you mean 'seeds'?"]),
        (nested("collapse", {"kll": 1}), ["collapse.kll is unknown", "did you mean 'kl'?"]),
        (nested("reference", "gprpo"), ["reference is 'gprpo'", "did you mean 'grpo'?"]),
        (nested("tuning/seeds", [1, 100]), ["seeds [1]", "tuning.seeds"]),
        (nested("seeds", [0, 0]), ["seeds is [0, 0]"]),
        (nested("tuning/at", {"update": "2"}), ["did you mean 'updates'?"]),
        (nested("tuning/at", {"updates": "16"}), ["tuning.at.updates is '16'"]),
        (nested("headroom", {"axis": "rate"}), ["headroom.axis is 'rate'"]),
        (nested("set", ["seed=3"]), ["seed cannot be set"]),
        (nested("tuning/axes/updates", {"2": []}), ["both in axes and in tuning.axes"]),
        (
            nested("axes/rate2", {"a": ["optimization.learning_rate=1"]}),
            ["'rate2' and 'rate' both set optimization.learning_rate"],
        ),
        (nested("tuning/axes/clip/wide", {"ctpo": []}), ["level 'wide'", "grpo, none"]),
        (nested("methods/a_b", []), ["'a_b' is not a name"]),
        (nested("seeds", []), ["seeds is []"]),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(tmp_path, content, change, words):
    change(content)
    with pytest.raises(StudyError) as error:
        load(tmp_path, content)
    for word in words:
        assert word in str(error.value)


def test_a_recipe_that_cannot_be_made_is_refused_with_its_place(tmp_path, content):
    content["tuning"]["axes"]["rate"]["high"] = ["optimization.learning_rat=4e-4"]
    with pytest.raises(StudyError, match=r"ctpo, .*rate high.*did you mean 'learning_rate'"):
        tuning_cells(load(tmp_path, content), tmp_path)


def test_every_method_is_tuned_at_every_setting_and_equal_recipes_run_once(study, tmp_path):
    cells = tuning_cells(study, tmp_path)
    # 2 updates x 2 rates x 2 clips x 2 seeds; without a clip, half of them are the same.
    assert Counter(cell.method for cell in cells) == {"ctpo": 16, "grpo": 16, "none": 8}
    assert {cell.seed for cell in cells} == {100, 101}
    assert len({cell.name for cell in cells}) == len(cells)
    wide = next(c for c in cells if c.method == "grpo" and c.levels["clip"] == "wide")
    assert wide.recipe.objective.clip_low == 0.4 and wide.recipe.threads == 1
    assert all(cell.recipe.seed == cell.seed for cell in cells)


def test_levels_that_are_fixed_for_the_tuning_are_not_tuned_by_themselves(content, tmp_path):
    content["tuning"]["at"] = {"updates": "2"}
    study = Study.model_validate(content)
    cells = tuning_cells(study, tmp_path)
    assert {cell.levels["updates"] for cell in cells} == {"2"}
    best = [Trial(c.method, c.levels, float(c.levels["rate"] == "high")) for c in cells]
    test = result_cells(study, tmp_path, choose(study, best))
    assert {cell.levels["updates"] for cell in test} == {"2", "1"}
    assert {cell.tuned["rate"] for cell in test} == {"high"}


def test_the_best_mean_over_seeds_wins_by_method_and_level(study, tmp_path):
    def outcome(cell):
        # One seed alone would choose otherwise: high wins on 100, and loses on the mean.
        if cell.method == "ctpo" and cell.levels["updates"] == "2":
            return {"low": 0.6, "high": 0.9 if cell.seed == 100 else 0.1}[cell.levels["rate"]]
        return {"low": 0.2, "high": 0.3}[cell.levels["rate"]]

    cells = tuning_cells(study, tmp_path)
    chosen = choose(study, [Trial(c.method, c.levels, outcome(c)) for c in cells])
    assert chosen["ctpo", ("2",)]["rate"] == "low"
    assert chosen["ctpo", ("1",)]["rate"] == "high"
    assert chosen["grpo", ("2",)] == {"rate": "high", "clip": "published"}  # of equals the first
    test = result_cells(study, tmp_path, chosen)
    assert len(test) == 3 * 2 * 2
    assert [cell.seed for cell in test] == sorted(study.seeds * 6)  # all methods of a seed first
    low = [c for c in test if c.recipe.optimization.learning_rate == 1e-4]
    assert {(c.method, c.levels["updates"]) for c in low} == {("ctpo", "2")}


def test_a_setting_with_a_failed_run_is_not_chosen(study, tmp_path):
    cells = tuning_cells(study, tmp_path)

    def outcome(cell):
        if cell.levels["rate"] == "high":
            return None if cell.seed == 101 else 1.0
        return 0.1

    chosen = choose(study, [Trial(c.method, c.levels, outcome(c)) for c in cells])
    assert {tuned["rate"] for tuned in chosen.values()} == {"low"}
    with pytest.raises(StudyError, match="no setting of ctpo 2 came through"):
        choose(study, [Trial(c.method, c.levels, None) for c in cells])


def test_the_digest_is_of_what_is_said_and_of_the_recipe_not_of_comments(tmp_path, small):
    def digest(text, recipe='parent = "tiny"\n'):
        (tmp_path / "base.toml").write_text(recipe)
        (tmp_path / "study.toml").write_text(text)
        return load_study(tmp_path / "study.toml").digest(tmp_path)

    text = small.replace('"tiny"', '"base.toml"')
    first = digest(text)
    assert digest("# a remark\n" + text) == first
    assert digest(text.replace("seeds = [0, 1]", "seeds = [0, 2]")) != first
    assert digest(text, 'parent = "tiny"\n[optimization]\nweight_decay = 0.1\n') != first


def test_without_a_clip_the_loss_is_that_of_plain_importance_weighting(study, make_batch, tmp_path):
    cell = next(c for c in tuning_cells(study, tmp_path) if c.method == "none")
    batch = make_batch(6, 9, scale=2.0)
    open_window = cell.recipe.objective.build()(*batch).per_token
    plain = Objective(ratio="token", surrogate="plain")(*batch).per_token
    assert open_window.tolist() == plain.tolist()
    (one,) = torch.autograd.grad(open_window.sum(), batch[0])
    (two,) = torch.autograd.grad(plain.sum(), batch[0])
    assert one.tolist() == two.tolist()
