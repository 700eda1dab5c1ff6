"""An evaluation on disk: whole lines, its own settings, one process at a time."""

import dataclasses
import json

import pyarrow.parquet as pq
import pytest

from ctpo.evaluation.answers import Answer, Question, Reply, graded
from ctpo.evaluation.directory import EvaluationDirectory, read_answers
from ctpo.tir.server.episodes import Transcript
from ctpo.tir.trajectory import ToolResult
from tests.evaluation.lessons import problems


def answer(number=0, sample=0, text=r"It is \boxed{42}", **fields):
    question = Question.of("lessons", problems()[number], sample, 0)
    transcript = Transcript(turns=[("assistant", text)], tokens=5, **fields)
    return graded(question, Reply(transcript, 0.5, question.seed))


def test_answers_come_back_as_they_were_given(tmp_path):
    given = [answer(0), answer(1), answer(2, text="Hm.")]
    with EvaluationDirectory(tmp_path / "out", {"a": 1}) as directory:
        directory.add(given[:2])
        directory.add(given[2:])
        directory.write_parquet()
    assert list(read_answers(tmp_path / "out")) == given
    table = pq.read_table(tmp_path / "out/answers.parquet").to_pylist()
    assert [Answer.from_dict(row) for row in table] == given
    with EvaluationDirectory(tmp_path / "out", {"a": 1}) as directory:
        assert list(directory.answers.values()) == [one.slim() for one in given]
        with pytest.raises(ValueError, match="has an answer already"):
            directory.add([given[0]])


@pytest.mark.parametrize("keep", range(0, 400, 57))
def test_whatever_is_torn_off_the_end_the_whole_lines_stay(tmp_path, keep):
    with EvaluationDirectory(tmp_path / "out", {}) as directory:
        directory.add([answer(0), answer(1)])
    file = tmp_path / "out/answers.jsonl"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) - keep])
    with EvaluationDirectory(tmp_path / "out", {}) as directory:
        kept = list(directory.answers.values())
        assert kept == [answer(0).slim(), answer(1).slim()][: len(kept)]
        directory.add([a for a in (answer(0), answer(1)) if a.key not in directory.answers])
    assert file.read_bytes() == data


def test_a_directory_without_an_answer_takes_other_settings(tmp_path):
    with EvaluationDirectory(tmp_path / "out", {"model": "mistyped"}):
        pass
    (tmp_path / "out/answers.jsonl").write_text('{"torn')
    with EvaluationDirectory(tmp_path / "out", {"model": "a"}) as directory:
        directory.add([answer()])
    assert json.loads((tmp_path / "out/settings.json").read_text()) == {"model": "a"}
    assert list(read_answers(tmp_path / "out")) == [answer()]


@pytest.mark.parametrize("there", [False, True], ids=["new", "there before"])
@pytest.mark.parametrize("answered", [False, True], ids=["no answer", "an answer"])
def test_a_failure_takes_away_only_what_is_new_and_holds_no_answer(tmp_path, there, answered):
    place = tmp_path / "evals" / "out"
    if there:
        place.mkdir(parents=True)
    with pytest.raises(RuntimeError), EvaluationDirectory(place, {}) as directory:
        if answered:
            directory.add([answer(0)])
        raise RuntimeError("the server is gone")
    assert place.exists() == (there or answered)
    assert (tmp_path / "evals").exists() == (there or answered)
    assert not answered or len(list(read_answers(place))) == 1


def test_other_settings_name_what_differs(tmp_path):
    with EvaluationDirectory(tmp_path / "out", {"seed": 0, "model": "a"}) as directory:
        directory.add([answer()])
    with (
        pytest.raises(ValueError, match="begun with seed = 0; now it is 1"),
        EvaluationDirectory(tmp_path / "out", {"seed": 1, "model": "a"}),
    ):
        pass
    (tmp_path / "other").mkdir()
    (tmp_path / "other/thesis.tex").write_text("")
    with (
        pytest.raises(ValueError, match="holds something else"),
        EvaluationDirectory(tmp_path / "other", {}),
    ):
        pass


def test_two_processes_do_not_work_in_one_directory(tmp_path):
    with EvaluationDirectory(tmp_path / "out", {}):
        with (
            pytest.raises(ValueError, match="another process"),
            EvaluationDirectory(tmp_path / "out", {}),
        ):
            pass
    with EvaluationDirectory(tmp_path / "out", {}):
        pass


@pytest.mark.parametrize("left", [[], [".lock"], [".lock", "answers.jsonl"]])
def test_what_ended_before_its_settings_were_written_is_taken_up(tmp_path, left):
    for name in left:
        (tmp_path / name).touch()
    with EvaluationDirectory(tmp_path, {}):
        assert (tmp_path / "settings.json").is_file()


@pytest.mark.parametrize("strange", ["notes.txt", "answers.jsonl"])
def test_what_is_no_evaluation_is_left_alone(tmp_path, strange):
    (tmp_path / strange).write_text("mine")
    with pytest.raises(ValueError, match="holds something else"), EvaluationDirectory(tmp_path, {}):
        pass
    assert [file.name for file in tmp_path.iterdir()] == [strange]


def test_a_damaged_line_is_named_and_not_skipped(tmp_path):
    with EvaluationDirectory(tmp_path / "out", {}) as directory:
        directory.add([answer(0)])
    file = tmp_path / "out/answers.jsonl"
    line = file.read_text()
    for damaged, message in (
        ("{}\n" + line, "line 1: not an answer"),
        (line + line, "line 2: .* is there twice"),
        (line + "nonsense\n", "line 2: not an answer"),
    ):
        file.write_text(damaged)
        with pytest.raises(ValueError, match=message):
            list(read_answers(tmp_path / "out"))
    with pytest.raises(FileNotFoundError, match="no answers.jsonl"):
        list(read_answers(tmp_path))


def test_what_cannot_be_held_against_the_model_is_could_not_tell():
    failed = ToolResult("print(1)", "sandbox-failure", "", "the server died")
    assert (answer(tool_results=[failed]).outcome, answer(tool_results=[failed]).path) == (
        "could-not-tell",
        "sandbox",
    )
    never_began = answer(text="", finish_reason="context")
    assert never_began.outcome == "could-not-tell"
    assert "does not fit" in never_began.reason
    cut = answer(text="So far", finish_reason="context")
    assert (cut.outcome, cut.score) == ("wrong", 0)
    assert answer().score == 1


def test_a_question_has_its_seed_for_itself():
    a, b = problems()[:2]
    seeds = {
        Question.of(x, p, s, r).seed for x in "xy" for p in (a, b) for s in (0, 1) for r in (0, 1)
    }
    assert len(seeds) == 16
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert Question.of("x", a, 0, 0) == Question.of("x", a, 0, 0)


def test_a_line_is_plain_json(tmp_path):
    with EvaluationDirectory(tmp_path / "out", {}) as directory:
        directory.add([dataclasses.replace(answer(0), text="é\u2028\n\x00")])
    (line,) = (tmp_path / "out/answers.jsonl").read_bytes().splitlines()
    assert json.loads(line)["text"] == "é\u2028\n\x00"


def test_what_a_server_failed_to_give_is_missing_when_the_work_goes_on(tmp_path):
    failed = answer(1, text="half of it", finish_reason="failed", failure="it broke off")
    assert (failed.outcome, failed.path, failed.reason) == (
        "could-not-tell",
        "server",
        "it broke off",
    )
    filtered = answer(2, finish_reason="filter")
    assert (filtered.outcome, filtered.path) == ("could-not-tell", "server")
    with EvaluationDirectory(tmp_path / "out", {"a": 1}) as directory:
        directory.add([answer(0), failed, filtered])
        assert len(directory.answers) == 3
    before = (tmp_path / "out/answers.jsonl").read_text().splitlines()
    with pytest.raises(ValueError, match="begun with a = 1"):
        EvaluationDirectory(tmp_path / "out", {"a": 2}).__enter__()
    assert (tmp_path / "out/answers.jsonl").read_text().splitlines() == before
    with EvaluationDirectory(tmp_path / "out", {"a": 1}) as directory:
        assert failed.key not in directory.answers
        assert len(directory.answers) == 2
        directory.add([answer(1)])
    after = (tmp_path / "out/answers.jsonl").read_text().splitlines()
    assert after[:2] == [before[0], before[2]]
    assert list(read_answers(tmp_path / "out")) == [answer(0), filtered, answer(1)]
