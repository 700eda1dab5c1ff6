"""The commands as a user types them, on the real thing."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tomli_w
import typer
from rich.table import Table
from typer.testing import CliRunner

from ctpo.cli.app import app
from ctpo.cli.console import console, print_markdown, print_table
from ctpo.engines.adapters import ADAPTERS
from ctpo.tir.storage import read_trajectories, write_trajectories
from tests.training.test_run import SMALL

CTPO = Path(sys.executable).parent / "ctpo"


def ctpo_process(*arguments, home):
    """Run a command as a shell does."""
    environment = os.environ | {"XDG_CACHE_HOME": str(home / "cache"), "COLUMNS": "200"}
    return subprocess.run(
        [CTPO, *map(str, arguments)], cwd=home, env=environment, capture_output=True, text=True
    )


def ctpo(*arguments, home, expect=0):
    """Run a command here, which saves the seconds of a new process and is the same otherwise."""
    with contextlib.chdir(home), pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        patch.setattr(console, "width", 200)
        shown = CliRunner().invoke(app, list(map(str, arguments)))
    assert shown.exception is None or isinstance(shown.exception, SystemExit), shown.exc_info
    assert shown.exit_code == expect, shown.output
    return shown


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def trained(home):
    changes = [argument for change in SMALL for argument in ("--set", change)]
    return ctpo("train", "tiny", *changes, "--output", "out/run", home=home).stdout


def test_training_ends_with_the_table_the_times_and_the_place(trained, home):
    assert "Held-out accuracy" in trained
    assert "digit-sum" in trained
    assert "Where the time went" in trained
    assert "updates" in trained
    assert "out/run/report.html" in trained
    assert (home / "out/run/report.html").stat().st_size > 10_000


def test_a_dry_run_prints_the_resolved_recipe_and_does_nothing(tmp_path):
    shown = ctpo(
        "train", "tiny", "--set", "objective.preset=gspo", "--set", "seed=3", "--dry-run",
        home=tmp_path,
    )  # fmt: skip
    recipe = tomllib.loads(shown.stdout)
    assert recipe["objective"]["preset"] == "gspo"
    assert recipe["seed"] == 3
    assert recipe["optimization"]["learning_rate"] > 0
    assert not list(tmp_path.iterdir())


def test_the_large_recipe_can_be_dry_run_without_its_model(tmp_path):
    shown = ctpo("train", "qwen3-4b-1gpu", "--dry-run", home=tmp_path).stdout
    assert "# model.path is not checked: Qwen/Qwen3-4B cannot be loaded: it is no" in shown
    recipe = tomllib.loads(shown)
    assert recipe["model"]["path"] == "Qwen/Qwen3-4B"
    assert recipe["rollout"]["mismatch_cap"] == 5.0


def test_a_dry_run_says_which_files_of_problems_are_not_here(tmp_path):
    shown = ctpo("train", "tiny", "--set", "data.train=no.jsonl", "--dry-run", home=tmp_path).stdout
    assert "# data.train is no.jsonl, and there is no such file here\n" in shown
    assert "data.held_out is" not in shown


def test_a_dry_run_refuses_a_model_that_is_not_there(tmp_path):
    shown = ctpo(
        "train", "qwen3-4b-1gpu", "--set", "model.path=/nope", "--dry-run", home=tmp_path, expect=1
    )
    assert "/nope cannot be loaded: there is no such directory" in shown.stderr


def test_init_writes_a_recipe_that_is_complete_and_nothing_over_what_is_there(
    tmp_path, monkeypatch
):
    assert "ctpo train recipe.toml" in ctpo("init", "mine", home=tmp_path).stdout
    monkeypatch.syspath_prepend(tmp_path / "mine")
    shown = ctpo("train", "recipe.toml", "--dry-run", home=tmp_path / "mine").stdout
    assert tomllib.loads(shown)["rewards"] == {"my_reward:right": 1.0, "my_reward:one_program": 0.1}
    before = {file: file.read_bytes() for file in (tmp_path / "mine").glob("*.*")}
    assert len(before) == 4
    again = ctpo("init", "mine", home=tmp_path, expect=1)
    assert "recipe.toml is there already" in again.stderr
    assert before == {file: file.read_bytes() for file in before}


@pytest.mark.long
def test_what_init_writes_gets_better_as_it_is(tmp_path, monkeypatch):
    ctpo("init", "mine", home=tmp_path)
    monkeypatch.setenv("PYTHONPATH", ".")
    place = tmp_path / "mine"
    shown = ctpo_process("train", "recipe.toml", "--output", "run", home=place)
    assert shown.returncode == 0, shown.stderr
    files = [place / f"run/evaluations/{name}.json" for name in ("start", "final")]
    start, final = (json.loads(f.read_text())["sampled"]["overall"]["mean"] for f in files)
    assert final > start + 0.1


def test_mistakes_get_one_sentence_and_no_traceback(tmp_path):
    shown = ctpo_process("train", "tiny", "--set", "objective.presett=gspo", home=tmp_path)
    assert shown.returncode == 1
    assert "objective.presett is unknown (did you mean 'preset'?)" in shown.stderr
    assert "Traceback" not in shown.stderr
    shown = ctpo("train", home=tmp_path, expect=2)
    assert "give either a recipe or --resume" in shown.stderr
    shown = ctpo("train", "--resume", "nowhere", home=tmp_path, expect=1)
    assert "nowhere" in shown.stderr
    shown = ctpo("train", "tiny", "--set", "data.train=none.parquet", home=tmp_path, expect=1)
    assert "none.parquet: no such file" in shown.stderr
    shown = ctpo("train", "qwen3-4b-1gpu", home=tmp_path, expect=1)
    assert "vllm is not installed" in shown.stderr
    shown = ctpo("report", "nowhere", home=tmp_path, expect=1)
    assert "nowhere" in shown.stderr
    shown = ctpo("eval", "nowhere", home=tmp_path, expect=1)
    assert "nowhere cannot be loaded" in shown.stderr
    shown = ctpo("eval", "/nope", home=tmp_path, expect=1)
    assert "/nope cannot be loaded: there is no such directory" in shown.stderr
    assert "Repo id" not in shown.stderr
    recipe = tomllib.loads(ctpo("train", "qwen3-4b-1gpu", "--dry-run", home=tmp_path).stdout)
    del recipe["vllm"]
    recipe["model"]["path"] = "/nope"
    (tmp_path / "nope.toml").write_text(tomli_w.dumps(recipe))
    shown = ctpo("train", "nope.toml", home=tmp_path, expect=1)
    assert "/nope cannot be loaded: there is no such directory" in shown.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["nope.toml"]


def test_what_is_written_goes_to_output_in_every_command():
    assert "--output" in {o for _, parameter in parameters() for o in parameter.opts}
    for command, parameter in parameters():
        assert "--out" not in parameter.opts or parameter.opts[0] == "--output", command


@pytest.mark.parametrize("arguments", [["--help"], ["train", "tiny", "--dry-run"]])
def test_a_full_disk_behind_the_output_is_told_in_one_line(arguments, tmp_path):
    with open("/dev/full", "w") as full:
        shown = subprocess.run(
            [CTPO, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
    assert (shown.returncode, shown.stderr) == (1, "error No space left on device\n")


def test_a_reader_that_leaves_early_sees_no_error(tmp_path):
    with subprocess.Popen(
        [CTPO, "train", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as shown:
        assert shown.stdout and shown.stderr
        shown.stdout.close()
        assert shown.stderr.read() == b""


def test_shells_complete_commands(tmp_path):
    asked = {"_CTPO_COMPLETE": "complete_bash", "COMP_WORDS": "ctpo ev", "COMP_CWORD": "1"}
    shown = subprocess.run([CTPO], env=os.environ | asked, capture_output=True, text=True)
    assert shown.stdout.split() == ["eval"], shown.stderr


def test_tables_wider_than_the_terminal_come_row_by_row(monkeypatch, capsys):
    monkeypatch.setattr(console, "width", 40)
    table = Table("t", "mean", *(f"column{i}" for i in range(9)), title="Numbers")
    table.add_row("1–4", "[0.5]", *map(str, range(9)))
    markdown = "Before\n| t | mean |\n|---|---|\n| a \\| b | " + "word " * 9 + "|\nAfter"
    with console.capture() as captured:
        print_table(table)
        print_markdown(markdown)
    lines = captured.get().splitlines()
    assert lines[:3] == ["Numbers", "t 1–4", "  mean [0.5]"] and "  column8 8" in lines
    assert "t a \\| b" in lines and lines[-1] == "After"


def summary(directory):
    return json.loads((directory / "summary.json").read_text())


def test_a_run_and_its_model_are_evaluated_alike(trained, home):
    options = ["--problems", 7, "--samples", 2, "--output"]
    ctpo("eval", "out/run", *options, "of-run", home=home)
    of_the_run = ("--max-response-tokens", 80, "--max-calls", 2)
    ctpo("eval", "out/run/model", *of_the_run, *options, "of-model", home=home)
    of_run, of_model = (
        summary(home / name)["benchmarks"]["builtin"] for name in ("of-run", "of-model")
    )
    assert of_run["figures"] == of_model["figures"]
    assert (of_run["answers"], of_run["problems"]) == (14, 7)
    assert set(of_run["figures"]) == {"avg@2", "pass@1", "pass@2", "maj@2"}
    page = (home / "of-run/trajectories.html").read_text()
    assert page.count('class="answer ') == 14
    shown = ctpo("compare", "of-run", "of-model", "--output", "both.json", home=home)
    assert "difference +0.0 points" in shown.stdout
    assert "- model: 'out/run' → 'out/run/model'" in shown.stdout
    assert json.loads((home / "both.json").read_text())["builtin"]["difference"]["mean"] == 0
    again = ("eval", "out/run", "--problems", 7, "--samples", 2, "--output", "of-run")
    shown = ctpo(*again, "--seed", "1", home=home, expect=1)
    assert "was begun with seed = 0; now it is 1" in shown.stderr


def test_a_file_in_verls_schema_is_evaluated(trained, home):
    rows = [
        {
            "data_source": "mine",
            "prompt": [{"role": "user", "content": f"Find the gcd of {n} and 18."}],
            "ability": "math",
            "reward_model": {"ground_truth": "6", "style": "rule"},
            "extra_info": {"index": n, "split": "test"},
        }
        for n in (12, 24, 30)
    ]
    pq.write_table(pa.Table.from_pylist(rows), home / "mine.parquet")
    shown = ctpo("eval", "out/run", "--data", "mine.parquet", "--samples", 2, home=home)
    assert "avg@2" in shown.stdout
    assert "| mine | 3 |" in shown.stdout
    answers = pq.read_table(home / "evals/out-run-mine/answers.parquet").to_pylist()
    assert [a["problem_id"] for a in answers] == [f"mine-{n}" for n in (12, 12, 24, 24, 30, 30)]


def test_a_run_is_evaluated_on_its_own_problems_unless_told_otherwise(trained, home):
    ctpo("eval", "out/run", "--output", "own", home=home)
    final = json.loads((home / "out/run/evaluations/final.json").read_text())["sampled"]
    found = summary(home / "own")["benchmarks"]["builtin"]["figures"]
    # The same problems, settings and seed: the same answers.
    assert found[f"avg@{final['samples_per_problem']}"] == final["overall"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--benchmark", "aime2025"], "did you mean 'aime25'"),
        (["--benchmark", "aime25=nowhere.parquet"], "hf download"),
        (["--benchmark", "aime25", "--data", "builtin"], "not both"),
        (["--k", "8", "--samples", "4"], "k is 8; with --samples 4"),
        (["--k", "x"], "numbers such as 1,8"),
        (["--samples", "4", "--temperature", "0"], "must be 1"),
        (["--revision", "main"], "benchmarks only"),
        (["--endpoint", "localhost:1"], "must begin with http"),
        (["--endpoint", "http://127.0.0.1:9"], "no server answers"),
        (["--endpoint", "http://127.0.0.1:9", "--request-fields", "[]"], "a JSON object"),
        (["--chat-template-kwargs", "{"], "not JSON"),
        (["--concurrency", "3"], "--concurrency has an effect with --endpoint only"),
        (["--endpoint", "http://x", "--batch-size", "3"], "without --endpoint only"),
        (["--protocol", "plain", "--max-calls", "3"], "no effect under the protocol plain"),
        ([], "cannot be loaded"),
    ],
)
def test_mistakes_in_an_evaluation_are_told_before_any_work(
    options, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(app, ["eval", "no-such-model", *options, "--output", "none"])
    assert shown.exit_code == 1
    assert message in shown.stderr
    assert not list(tmp_path.iterdir())


def parameters():
    """Every parameter of every command, with the command's name."""
    commands = [typer.main.get_command(app)]
    while commands:
        command = commands.pop()
        commands += getattr(command, "commands", {}).values()
        for parameter in command.params:
            yield command.name, parameter


def test_no_help_text_holds_brackets_which_would_vanish():
    texts = [(where, getattr(one, "help", None) or "") for where, one in parameters()]
    for where, text in texts:
        assert "[" not in text, (where, text)
    assert sum(bool(text) for _, text in texts) > 50


def test_a_report_is_drawn_again(trained, home):
    page = home / "out/run/report.html"
    before = page.read_bytes()
    page.unlink()
    ctpo("report", "out/run", home=home)
    assert page.read_bytes() == before


def test_a_finished_run_can_be_resumed_without_harm(trained, home):
    before = (home / "out/run/metrics.jsonl").read_bytes()
    ctpo("train", "--resume", "out/run", home=home)
    assert (home / "out/run/metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_the_doctor_says_what_protects_and_what_is_missing(tmp_path):
    shown = ctpo_process("doctor", home=tmp_path)
    assert shown.returncode == 0, shown.stderr
    for topic in ("sandbox", "gpu", "trl", "vllm", "verl"):
        assert topic in shown.stdout
    for adapter in ADAPTERS:
        assert adapter.engine in shown.stdout
        assert adapter.tested.split()[0] in shown.stdout
    assert "programs run isolated" in shown.stdout
    assert "plug-in loaded: CTPOTrainer" in shown.stdout


def test_importing_the_package_loads_no_engine_and_no_torch():
    code = (
        "import sys, ctpo; "
        "print({'torch', 'transformers', 'trl', 'verl', 'ray'} & set(sys.modules)); "
        "ctpo.preset('ctpo'); print({'transformers', 'trl', 'verl', 'ray'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "set()\nset()\n"


def test_a_run_without_neighbouring_checkpoints_says_which_it_has(trained, home):
    shown = ctpo("theory", "measure", "out/run", home=home, expect=1)
    assert "there are those after 2, 4" in " ".join(shown.stderr.split())
    assert "checkpoint_every=1" in shown.stderr
    shown = ctpo("theory", "measure", "out/run", "--after", "1;2", home=home, expect=1)
    assert "--after is '1;2'" in shown.stderr


def test_two_models_are_measured_on_trajectories_from_a_file(trained, home):
    run = home / "out/run"
    # The model of this test is hardly ever right; what it gets for it is no matter here.
    trajectories = [
        dataclasses.replace(t, reward=float(i % 3 == 0))
        for i, t in enumerate(read_trajectories(run / "trajectories.parquet"))
    ]
    write_trajectories(home / "some.parquet", trajectories, 0)
    old, new = (run / "checkpoints" / f"checkpoint-{step}" for step in (8, 16))
    shown = ctpo(
        "theory", "measure-files", old, new, "some.parquet", "--out", "measured",
        "--reference", "some.parquet", home=home,
    )  # fmt: skip
    assert "cumulative-geometric-mean" in shown.stdout
    written = json.loads((home / "measured/measured.json").read_text())
    assert written["settings"]["old"] == str(old)
    assert (home / "measured/figures/theory-measured-positions.png").is_file()
