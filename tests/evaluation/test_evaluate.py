"""The loop: problems in, graded answers and averages out."""

import json
from dataclasses import dataclass

import pytest

from ctpo.evaluation import Evaluation, avg_at_k, evaluate
from ctpo.tasks import Problem
from ctpo.tir.trajectory import Trajectory, Turn


@dataclass
class Said:
    assistant_text: str
    sandbox_failed: bool = False


def _problem(number, source="a"):
    return Problem(
        id=f"p{number}",
        messages=({"role": "user", "content": f"Say {number}."},),
        answer=str(number),
        source=source,
        split="test",
    )


PROBLEMS = [_problem(0, "a"), _problem(1, "b"), _problem(2, "a")]


class Scripted:
    """Answers by a table of what to say to the k-th asking of each question."""

    def __init__(self, table):
        self.table = table
        self.asked = {}
        self.batches = []

    def __call__(self, chats, batch_index):
        self.batches.append((batch_index, len(chats)))
        answers = []
        for chat in chats:
            question = chat[-1]["content"]
            turn = self.asked[question] = self.asked.get(question, -1) + 1
            answers.append(Said(self.table[question][turn]))
        return answers


TABLE = {
    "Say 0.": [r"\boxed{0}", r"\boxed{5}", r"I do not know."],
    "Say 1.": [r"\boxed{1}", r"\boxed{1}", r"\boxed{The answer is 1}"],
    "Say 2.": [r"\boxed{3}", r"\boxed{2.0}", r"\boxed{2}"],
}


@pytest.mark.parametrize("batch_size", [1, 2, 4, 9, 100])
def test_grades_and_averages_do_not_depend_on_the_batch_size(batch_size):
    policy = Scripted(TABLE)
    result = evaluate(PROBLEMS, policy, samples_per_problem=3, batch_size=batch_size)
    assert result.overall == avg_at_k([[1, 0, 0], [1, 1, None], [0, 1, 1]])
    assert result.by_source == {
        "a": avg_at_k([[1, 0, 0], [0, 1, 1]]),
        "b": result.by_source["b"],
    }
    assert result.by_source["b"].mean == 1
    assert result.by_source["b"].unknown == 1
    assert sum(size for _, size in policy.batches) == 9
    assert max(size for _, size in policy.batches) == min(batch_size, 9)
    assert [index for index, _ in policy.batches] == list(range(len(policy.batches)))


def test_a_record_tells_what_was_said_and_what_was_right():
    result = evaluate(PROBLEMS, Scripted(TABLE), samples_per_problem=3, batch_size=4)
    assert [(r.problem_id, r.sample, r.outcome, r.extracted) for r in result.records] == [
        ("p0", 0, "right", "0"),
        ("p0", 1, "wrong", "5"),
        ("p0", 2, "wrong", None),
        ("p1", 0, "right", "1"),
        ("p1", 1, "right", "1"),
        ("p1", 2, "could-not-tell", "The answer is 1"),
        ("p2", 0, "wrong", "3"),
        ("p2", 1, "right", "2.0"),
        ("p2", 2, "right", "2"),
    ]
    assert result.records[2].text == "I do not know."
    assert result.records[2].reason == "no box"
    assert result.records[7].answer == "2"


def test_an_answer_whose_sandbox_failed_has_no_score():
    def policy(chats, batch_index):
        return [Said(r"\boxed{7}", sandbox_failed=True) for _ in chats]

    result = evaluate(PROBLEMS, policy, samples_per_problem=1, batch_size=3)
    assert (result.overall.problems, result.overall.unknown) == (0, 3)
    assert {r.reason for r in result.records} == {"the sandbox failed"}


def test_a_box_that_a_tool_printed_is_no_answer():
    turns = [Turn("assistant", 0, 1, "print"), Turn("tool", 1, 2, r"\boxed{0}")]
    printed = Trajectory([1], [2, 3], [True, False], [0.0, 0.0], turns, [], "answered")

    result = evaluate(
        PROBLEMS[:1], lambda chats, index: [printed], samples_per_problem=1, batch_size=1
    )
    assert result.overall.mean == 0


def test_progress_counts_answers():
    seen = []
    evaluate(
        PROBLEMS,
        Scripted(TABLE),
        samples_per_problem=3,
        batch_size=4,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(4, 9), (8, 9), (9, 9)]


def test_a_policy_that_edits_its_chats_does_not_edit_the_problems():
    def policy(chats, batch_index):
        for chat in chats:
            chat[0]["content"] = "edited"
            chat.append({"role": "assistant", "content": "x"})
        return [Said("") for _ in chats]

    evaluate(PROBLEMS, policy, samples_per_problem=2, batch_size=1)
    assert PROBLEMS[0].messages == ({"role": "user", "content": "Say 0."},)


def test_the_dictionary_has_the_agreed_shape_and_reads_back():
    result = evaluate(PROBLEMS, Scripted(TABLE), samples_per_problem=3, batch_size=4)
    fields = result.to_dict()
    assert set(fields) == {"samples_per_problem", "overall", "by_source"}
    keys = {
        "mean",
        "low",
        "high",
        "sampling_error",
        "clustered_error",
        "problems",
        "answers",
        "unknown",
    }
    assert set(fields["overall"]) == set(fields["by_source"]["a"]) == keys
    again = Evaluation.from_dict(json.loads(json.dumps(fields, allow_nan=False)))
    assert again.to_dict() == fields
    assert again.overall == result.overall
    assert again.samples_per_problem == 3


@pytest.mark.parametrize("number", [0, 2])
def test_a_policy_that_loses_answers_is_refused(number):
    with pytest.raises(ValueError, match=f"gave {number} answers to 1 chats in batch 0"):
        evaluate(
            PROBLEMS,
            lambda chats, index: [Said("")] * number,
            samples_per_problem=1,
            batch_size=1,
        )


def test_an_evaluation_of_nothing_is_refused():
    policy = Scripted(TABLE)
    with pytest.raises(ValueError, match="no problems"):
        evaluate([], policy, samples_per_problem=1, batch_size=1)
    with pytest.raises(ValueError, match="samples_per_problem is 0"):
        evaluate(PROBLEMS, policy, samples_per_problem=0, batch_size=1)
    with pytest.raises(ValueError, match="batch_size is 0"):
        evaluate(PROBLEMS, policy, samples_per_problem=1, batch_size=0)
