"""Answers graded again: only grades change, the old one stays beside the new."""

import dataclasses
import json

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ctpo.cli.app import app
from ctpo.cli.console import console
from ctpo.evaluation.directory import EvaluationDirectory, read_answers
from ctpo.evaluation.regrade import regrade
from ctpo.evaluation.summary import keep_summary, summarize
from ctpo.tir.trajectory import ToolResult
from tests.evaluation.lessons import questions
from tests.evaluation.test_directory import answer

SOURCES = {"lessons": {"source": "here", "revision": None}}
SETTINGS = {"model": "m", "samples": 2, "seed": 3, "benchmarks": SOURCES, "temperature": 1.0}
SETTINGS |= {"protocol": "fence 2"}
# As if an older grader had been wrong, blind, and right.
OLD = {"outcome": "wrong", "path": "words", "reason": "another grader's", "extracted": "42"}
GIVEN = [
    dataclasses.replace(answer(0, 0), **OLD),
    dataclasses.replace(answer(0, 1), outcome="could-not-tell", extracted=None),
    dataclasses.replace(answer(1, 0, r"\boxed{6}"), reason="said otherwise"),
    answer(1, 1, "half", finish_reason="failed", failure="it broke off"),
    answer(2, 0, r"\boxed{7}", tool_results=[ToolResult("1", "sandbox-failure", "", "x")]),
    answer(2, 1, "", finish_reason="context"),
]


@pytest.fixture
def place(tmp_path):
    with EvaluationDirectory(tmp_path / "out", SETTINGS) as directory:
        directory.add_problems(questions())
        directory.add(GIVEN)
        keep_summary(directory, "m", SOURCES, [1, 2], seed=3)
    return tmp_path / "out"


def test_a_grade_that_is_another_now_has_the_old_one_beside_it(place):
    lines = (place / "answers.jsonl").read_text().splitlines()
    found = regrade(place)
    assert [(old.outcome, new.outcome) for old, new in found.changed] == [
        ("wrong", "right"),
        ("could-not-tell", "right"),
    ]
    after = list(read_answers(place))
    assert [one.key for one in after] == [one.key for one in GIVEN]
    assert (after[0].outcome, after[0].extracted, after[0].earlier) == ("right", "42", [OLD])
    # What did not change is the same to the letter, failures of server and sandbox with it.
    assert (place / "answers.jsonl").read_text().splitlines()[2:] == lines[2:]
    table = pq.read_table(place / "answers.parquet").to_pylist()
    assert [row["earlier"] for row in table] == [one.earlier for one in after]


def test_the_summary_is_that_of_the_new_grades(place):
    before = json.loads((place / "summary.json").read_text())
    found = regrade(place)
    now = json.loads((place / "summary.json").read_text())
    expected = summarize([one.slim() for one in read_answers(place)], SOURCES, [1, 2], 3)
    assert now == {"model": "m"} | expected != before
    assert (place / "summary.md").read_text() == found.summary


def test_grading_again_twice_changes_nothing_more(place):
    regrade(place)
    files = {file: file.read_bytes() for file in place.iterdir() if file.suffix != ".parquet"}
    assert regrade(place).changed == []
    assert {file: file.read_bytes() for file in files} == files


def test_the_command_says_what_changed_and_refuses_what_has_no_effect(place, monkeypatch):
    monkeypatch.setattr(console, "width", 200)
    ran = CliRunner().invoke(app, ["eval", "--regrade", str(place)])
    assert ran.exit_code == 0, ran.output
    assert "2 of 6 changed" in ran.output
    assert "1 wrong → right" in ran.output
    assert "| lessons/lesson-0 #0 | wrong (words: another grader's) | right (" in ran.output
    assert "| benchmark | problems | avg@2" in ran.output
    for more, message in (
        (["model"], "model has no effect with --regrade"),
        (["--samples", "3"], "samples has no effect with --regrade"),
    ):
        ran = CliRunner().invoke(app, ["eval", *more, "--regrade", str(place)])
        assert ran.exit_code != 0
        assert message in ran.output
    assert CliRunner().invoke(app, ["eval"]).exit_code != 0


def test_an_evaluation_that_is_not_finished_is_graded_without_a_summary(tmp_path):
    with EvaluationDirectory(tmp_path / "out", SETTINGS) as directory:
        directory.add(GIVEN[:1])
    found = regrade(tmp_path / "out")
    assert (len(found.changed), found.summary) == (1, "")
    assert not (tmp_path / "out/summary.json").exists()
    with pytest.raises(FileNotFoundError, match="not an evaluation's directory"):
        regrade(tmp_path)
