"""What lm-eval's own readers find in the files; `make_table` of 0.4.13 prints them."""

import dataclasses
import json

import pyarrow.parquet as pq

from ctpo.evaluation.answers import Question, Reply, graded, graded_again
from ctpo.evaluation.directory import EvaluationDirectory
from ctpo.evaluation.lm_eval_log import write_lm_eval_log
from ctpo.evaluation.summary import keep_summary
from ctpo.tir.server.episodes import Transcript
from tests.evaluation.lessons import problems

SOURCES = {"own/set": {"source": "here", "revision": None}}
BOXES = [["42", "7"], ["6", "six"], ["72pow(4", "3"]]


def test_results_and_samples_are_lm_evals_and_accepted_answers_count(tmp_path):
    first, second, third = problems()
    asked = [first, dataclasses.replace(second, also=("six",)), third]
    with EvaluationDirectory(tmp_path / "out", {"model": "m", "samples": 2}) as directory:
        directory.add_problems([Question.of("own/set", p, 0, 0) for p in asked])
        answers = [
            graded(
                Question.of("own/set", problem, sample, 0),
                Reply(Transcript(tokens=5, turns=[("assistant", rf"\boxed{{{box}}}")]), 0.5, 1),
            )
            for problem, boxes in zip(asked, BOXES, strict=True)
            for sample, box in enumerate(boxes)
        ]
        directory.add(list(reversed(answers)))
        keep_summary(directory, "m", SOURCES, [1], seed=0)
    assert [answer.score for answer in answers] == [1, 0, 1, 1, None, 0]
    assert graded_again(answers[3]) is answers[3]
    assert pq.read_table(tmp_path / "out/answers.parquet")["also"].to_pylist()[2] == ["six"]

    file = write_lm_eval_log(tmp_path / "out", tmp_path / "lm")
    results = json.loads(file.read_text())
    figures = results["results"]["own/set"]
    assert figures["avg@2,ctpo"] == (0.5 + 1 + 0) / 3
    assert figures["avg@2_stderr,ctpo"] > 0
    assert results["n-samples"] == {"own/set": {"original": 3, "effective": 3}}
    stamp = file.stem.removeprefix("results_")
    lines = (tmp_path / f"lm/samples_own_set_{stamp}.jsonl").read_text().splitlines()
    samples = [json.loads(line) for line in lines]
    assert [sample["scores"] for sample in samples] == [[1, 0], [1, 1], [None, 0]]
    assert [sample["acc"] for sample in samples] == [0.5, 1, 0]
    assert samples[1]["filtered_resps"] == ["6", "six"]
    assert samples[1]["doc"]["also"] == ["six"]
