"""`ctpo.train` and `ctpo.evaluate` from Python, with a task of the user's own and a tracker."""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

import ctpo
from ctpo.tasks import Problem
from ctpo.training.evaluating.request import Server
from ctpo.training.recipe.loading import load_recipe

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def own_task():
    sys.path.insert(0, str(EXAMPLES))
    yield importlib.import_module("own_task")
    sys.path.remove(str(EXAMPLES))
    sys.modules.pop("own_task")


@pytest.fixture
def model_beside(own_task, tmp_path, monkeypatch):
    """The model that the example's recipe names, in the current directory."""
    monkeypatch.chdir(tmp_path)
    own_task.save_tiny_model("runs/own-task-model")


@pytest.fixture(scope="module")
def trained(own_task, tmp_path_factory):
    """The example as it is, in small, reporting to TensorBoard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("own-task"))
        change = ['report_to=["tensorboard"]', "optimization.batches=2", "data.held_out_problems=4"]
        result = own_task.main(change=change)
        yield type(result)(
            *(x.resolve() if isinstance(x, Path) else x for x in vars(result).values())
        )


def test_importing_the_package_stays_light():
    code = (
        "import sys, ctpo; ctpo.train, ctpo.evaluate\n"
        "print([m for m in ('torch', 'transformers', 'pydantic', 'ctpo.sandbox') "
        "if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout.strip() == "[]", shown.stderr


@pytest.mark.slow
def test_the_examples_parts_train(trained):
    recipe = load_recipe(str(trained.path / "recipe.toml"))
    assert list(recipe.rewards.items()) == [("own_task:right", 1.0), ("own_task:digits", 0.5)]
    for row in trained.metrics:
        parts = row["rewards/own_task:right"] + 0.5 * row["rewards/own_task:digits"]
        assert row["reward/mean"] == pytest.approx(parts)
        assert row["on_policy/log_rho_max"] == 0.0
    assert [m["batch"] for m in trained.metrics] == [1, 2]
    start = json.loads((trained.path / "evaluations/start.json").read_text())
    (first, *_) = trained.accuracy
    assert first.source == "all" and first.before.mean == start["sampled"]["overall"]["mean"]
    assert trained.report.is_file() and (trained.model / "config.json").is_file()


@pytest.mark.slow
def test_tensorboard_gets_our_names_the_evaluations_and_figures_by_position(trained):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(trained.path / "tensorboard"))
    events.Reload()
    for name in ("reward/mean", "log_rho/std", "clip/high", "rewards/own_task:digits"):
        kept = [(event.step, event.value) for event in events.Scalars(name)]
        assert kept == [(m["batch"], pytest.approx(m[name])) for m in trained.metrics], name
    assert [event.step for event in events.Scalars("evaluation/sampled")] == [0, 2]
    assert set(events.Tags()["images"]) == {
        "by-position/ratio-spread",
        "by-position/clip-rate",
        "by-position/ratio-drift",
    }
    image = events.Images("by-position/ratio-spread")[-1]
    assert image.step == 2 and image.width > 300 and image.encoded_image_string[1:4] == b"PNG"


@pytest.mark.slow
def test_the_trained_model_is_evaluated_by_the_rewards_it_was_trained_under(
    trained, own_task, tmp_path
):
    result = ctpo.evaluate(trained.path, output=tmp_path / "eval", samples=1, problems=3)
    answers = [json.loads(x) for x in (tmp_path / "eval/answers.jsonl").read_text().splitlines()]
    assert {a["path"] for a in answers} == {"reward"}
    assert str(result) == result.text and result.page.is_file() and not result.failed
    always = ctpo.evaluate(
        trained.path, output=tmp_path / "always", reward=lambda t, p: 1.0, samples=1, problems=3
    )
    (benchmark,) = always.summary["benchmarks"].values()
    assert "100" in always.text and benchmark["answers"] == 3
    with pytest.raises(ValueError, match="reward"):  # another reward is another evaluation
        ctpo.evaluate(trained.path, output=tmp_path / "always", samples=1, problems=3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rewards": {"own_task:wrong": 1.0}}, "rewards.own_task:wrong is .* has no 'wrong'"),
        ({"rewards": lambda trajectory: 1.0}, "rewards.given:reward_0 is .*which takes"),
        ({"rewards": {}}, "rewards is empty"),
        ({"tools": ["own_task:STOCK"]}, "rollout.tools is 'own_task:STOCK', a dict"),
        ({"protocol": "own_task:stock"}, "rollout.protocol is .*must be a ctpo.tir.ToolProtocol"),
        ({"protocol": "fence"}, "tools are given, but the protocol fence calls Python at most"),
        ({"generator": "own_task:problems"}, "rollout.generator is .*which takes"),
        ({"problems": "own_task:few"}, "data.train is 'own_task:few', but own_task has no 'few'"),
        ({"problems": lambda: []}, "given:train: no problems"),
        ({"change": ["report_to=trackio"]}, "report_to"),
        ({"resume": "there"}, "give either a recipe or resume"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_a_part_that_cannot_be_used_stops_before_there_is_a_run(
    options, words, own_task, model_beside, tmp_path
):
    with pytest.raises(ValueError, match=words):
        ctpo.train(EXAMPLES / "own_task.toml", output=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rewards": ["grade"]}, r"rewards is \['grade'\]; it must be a function, or weights"),
        ({"rewards": 1.0}, "rewards is 1.0; it must be a function, or weights"),
        ({"tools": len}, "tools is <built-in function len>; it must be a list"),
        ({"tools": "own_task:stock"}, "tools is 'own_task:stock'; it must be a list"),
        ({"change": "seed=3"}, "change is 'seed=3'; it must be a list"),
        ({"protocol": 5}, "protocol is 5; it must be a name or a ctpo.tir.ToolProtocol"),
        ({"output": ""}, "output is '', which is empty"),
        ({"recipe": None, "resume": ""}, "resume is '', which is empty"),
        ({"recipe": " "}, "recipe is ' ', which is empty"),
    ],
)
def test_an_argument_of_another_kind_is_named_before_anything_starts(
    options, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((TypeError, ValueError), match=f"^{words}"):
        ctpo.train(**{"recipe": "tiny"} | options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        *(({"temperature": value}, f"temperature is {value}; it must be 0 or more, and finite")
          for value in (math.nan, math.inf, -0.5)),
        *(({"hard_fraction": value}, f"hard_fraction is {value}; it must be 0 to 1")
          for value in (math.nan, 1.5, -1)),
        *(({name: value}, f"{name} is .*; it must be")
          for name in ("problems", "samples", "max_response_tokens", "batch_size", "seed")
          for value in ("a", -1, 1.5, True)),
        *(({name: 0}, f"{name} is 0; it must be 1 or more")
          for name in ("problems", "samples", "max_response_tokens", "batch_size")),
        *(({name: " "}, f"{name} is ' ', which is empty")
          for name in ("data", "revision", "protocol", "reward")),
        ({"benchmarks": "aime25"}, "benchmarks is 'aime25'; it must be a list of names"),
        ({"benchmarks": [""]}, r"benchmarks\[0\] is '', which is empty"),
        ({"output": ""}, "output is '', which is empty"),
        ({"ks": 8}, "ks is 8; it must be a list of ints"),
        ({"ks": [0]}, r"ks\[0\] is 0; it must be 1 or more"),
        ({"server": "http://here"}, "server is 'http://here'; it must be a Server"),
        ({"endpoint": "http://here"}, "evaluate has no option 'endpoint': it is url of server="),
        ({"concurrency": 3}, "evaluate has no option 'concurrency': it is concurrency of server="),
        ({"benchmark": ["aime25"]}, "evaluate has no option 'benchmark' .did you mean 'benchmarks"),
    ],
)  # fmt: skip
def test_an_evaluation_that_cannot_be_is_refused_by_field_before_it_starts(
    options, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((TypeError, ValueError), match=f"^{words}"):
        ctpo.evaluate("tiny", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        {"url": ""},
        {"timeout": math.nan},
        {"timeout": math.inf},
        {"timeout": 0},
        {"retries": -1},
        {"concurrency": 0},
        {"concurrency": "a"},
    ],
)
def test_a_server_that_cannot_be_asked_is_refused_by_field(options):
    with pytest.raises((TypeError, ValueError), match=rf"^server\.{next(iter(options))} is "):
        Server(**{"url": "http://here"} | options)


@pytest.mark.slow
def test_a_run_goes_on_with_its_own_parts_only(trained, own_task):
    again = ctpo.train(resume=trained.path, tools=[own_task.stock, own_task.Notebook])
    assert again.metrics == trained.metrics
    with pytest.raises(ValueError, match="begun with other parts"):
        ctpo.train(resume=trained.path, rewards=own_task.digits)


def test_parts_that_are_handed_over_are_named_in_the_recipe(own_task):
    from ctpo.commands import _reference, _with

    problems = [Problem("a", ({"role": "user", "content": "?"},), "1", "mine", "train")]
    recipe = load_recipe(str(EXAMPLES / "own_task.toml"))
    changed = _with(recipe, {"data.train": _reference(problems, "train")})
    assert changed.data.train == "given:train"
    assert _reference(own_task.stock, "x") == recipe.rollout.tools[0]
