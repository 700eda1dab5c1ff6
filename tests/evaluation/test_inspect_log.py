"""The log for Inspect AI: every answer once, in words that Inspect itself reads."""

import json

import pytest

from ctpo.evaluation.answers import Question
from ctpo.evaluation.directory import EvaluationDirectory
from ctpo.evaluation.inspect_log import write_inspect_log
from tests.evaluation.conftest import problems
from tests.evaluation.test_directory import answer


@pytest.fixture
def written(tmp_path):
    given = [
        answer(0),
        answer(0, 1, text="Hm.", finish_reason="length"),
        answer(1, text=r'"quoted" \boxed{x = 2 + 3 = 42}'),
    ]
    with EvaluationDirectory(tmp_path / "out", {"model": "m", "samples": 2}) as directory:
        directory.add_problems([Question.of("lessons", problem, 0, 0) for problem in problems()])
        directory.add(given)
    write_inspect_log(tmp_path / "out", tmp_path / "log.json")
    return tmp_path / "log.json", given


def test_each_answer_is_a_sample_with_its_score(written):
    file, given = written
    log = json.loads(file.read_text())
    assert [sample["epoch"] for sample in log["samples"]] == [1, 2, 1]
    assert [sample["scores"]["ctpo"]["value"] for sample in log["samples"]] == [
        {"right": "C", "wrong": "I", "could-not-tell": "N"}[one.outcome] for one in given
    ]
    assert [s["output"]["choices"][0]["stop_reason"] for s in log["samples"]] == [
        "stop",
        "max_tokens",
        "stop",
    ]
    assert log["samples"][2]["messages"][-1] == {"role": "assistant", "content": given[2].text}
    # Two answers to each problem were asked for, and not all are there.
    assert log["status"] == "started"
    assert log["results"]["total_samples"] == 2 * len(problems())


def test_inspect_reads_what_is_written(written):
    reading = pytest.importorskip("inspect_ai.log", reason="needs inspect-ai")
    file, given = written
    log = reading.read_eval_log(str(file))
    assert [sample.target for sample in log.samples] == [one.gold for one in given]
    assert [sample.scores["ctpo"].answer for sample in log.samples] == [
        one.extracted for one in given
    ]


def test_a_directory_without_answers_is_refused(tmp_path):
    with EvaluationDirectory(tmp_path / "out", {"model": "m", "samples": 2}):
        pass
    with pytest.raises(ValueError, match="holds no answers"):
        write_inspect_log(tmp_path / "out", tmp_path / "log.json")
    assert not (tmp_path / "log.json").exists()
