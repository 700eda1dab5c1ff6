"""`ctpo runs`, `ctpo watch` and `ctpo compare` on run directories."""

import json
import shutil
import threading

import pytest
from typer.testing import CliRunner

from ctpo.cli.app import app
from ctpo.cli.console import console
from ctpo.disk import locked
from tests.report.conftest import make_run


def ctpo(*arguments, expect=0):
    shown = CliRunner().invoke(app, list(map(str, arguments)))
    assert shown.exit_code == expect, shown.output
    return shown.output


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    make_run(folder / "done")
    for name in ("stopped", "going", "group/broken"):
        shutil.copytree(folder / "done", folder / name)
    (folder / "stopped" / "evaluations" / "final.json").unlink()
    (folder / "group/broken" / "metrics.jsonl").write_text("no JSON\n")
    begun = folder / "begun"  # and killed in its warm start
    begun.mkdir()
    (begun / "recipe.toml").write_text("seed = 3\n")
    return folder


@pytest.mark.parametrize("width", [40, 120])
def test_runs_are_listed_with_state_and_accuracy_at_any_width(runs, monkeypatch, width):
    monkeypatch.setattr(console, "width", width)
    with locked(runs / "going"):
        lines = ctpo("runs", runs).splitlines()
    assert max(map(len, lines)) <= width
    words = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert words["done"][:3] == ["done", "80.0", "%"]
    assert words["stopped"][:3] == ["stopped", "50.0", "%"]
    assert words["going"][0] == "running"
    assert words["begun"][0] == "stopped"
    assert words["group/broken"][0].startswith("unreadable")
    assert ("12/?" in words["done"]) == (width == 120)


def test_a_folder_without_runs_is_told(tmp_path):
    assert "no runs in" in ctpo("runs", tmp_path)
    assert "there is no folder" in ctpo("runs", tmp_path / "nowhere", expect=1)


def test_watching_ends_with_the_run_and_shows_how_it_ended(runs):
    looked, ended = threading.Event(), threading.Event()

    def train():
        with locked(runs / "going"):
            looked.set()
            ended.wait(60)
            with (runs / "going" / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"batch": 13, "reward/mean": 0.875}) + "\n")

    thread = threading.Thread(target=train)
    thread.start()
    looked.wait(60)
    threading.Timer(0.3, ended.set).start()
    shown = ctpo("watch", runs / "going", "--every", "0.1")
    thread.join()
    assert "done, batch 13" in shown and "0.875" in shown and "80.0 %" in shown


def test_training_runs_are_compared_and_not_with_evaluations(runs, tmp_path):
    shown = ctpo("compare", runs / "done", runs / "going", "--output", tmp_path / "both.json")
    assert "second less first: +0.0 points" in shown
    assert "It worked" in json.loads((tmp_path / "both.json").read_text())[0]
    (tmp_path / "evaluation").mkdir()
    refused = ctpo("compare", runs / "done", tmp_path / "evaluation", expect=2)
    assert "is a training run" in " ".join(refused.replace("│", "").split())


def test_of_one_run_an_output_is_refused(runs):
    assert "has an effect with several" in " ".join(
        ctpo("report", runs / "done", "--output", "x.html", expect=2).replace("│", "").split()
    )


@pytest.mark.parametrize(
    "arguments", [["--benchmark", ""], ["--benchmark", " , "], ["--output", ""], ["--data", ""]]
)
def test_an_empty_option_of_eval_is_no_default(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(app, ["eval", "tiny", *arguments])
    assert shown.exit_code and ("empty" in shown.stderr or "names none" in shown.stderr)
    assert list(tmp_path.iterdir()) == []
