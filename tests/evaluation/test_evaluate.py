"""The loop: problems in, graded answers and averages out."""

import json
import random

import pytest

from ctpo.evaluation import Evaluation, avg_at_k, evaluate
from ctpo.evaluation.answers import questions
from ctpo.evaluation.asking import BatchModel, answer_all
from ctpo.evaluation.directory import EvaluationDirectory, read_answers
from ctpo.evaluation.summary import figures, summarize
from ctpo.tasks import Problem
from ctpo.tir.trajectory import ToolResult, Trajectory, Turn
from ctpo.training.verl.results import evaluation_of


def said(text, *results, finish_reason="answered"):
    turns = [Turn("assistant", 0, 1, text)]
    return Trajectory([1], [2], [True], [0.0], turns, list(results), finish_reason)


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

    def __call__(self, chats, seed):
        self.batches.append((seed, len(chats)))
        answers = []
        for chat in chats:
            question = chat[-1]["content"]
            turn = self.asked[question] = self.asked.get(question, -1) + 1
            answers.append(said(self.table[question][turn]))
        return answers


TABLE = {
    "Say 0.": [r"\boxed{0}", r"\boxed{5}", r"I do not know."],
    "Say 1.": [r"\boxed{1}", r"\boxed{1}", r"\boxed{maybe 1}"],
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
    assert [seed for seed, _ in policy.batches] == list(range(len(policy.batches)))


BROKEN = ToolResult("print(1)", "sandbox-failure", "", "the server died")
# One of each kind: right, wrong, silent, cut off, not to be told, and three that are no fault of
# the model's: a broken sandbox, a prompt that does not fit, and both broken and right.
KINDS = [
    said(r"\boxed{0}"),
    said(r"\boxed{7}"),
    said("I do not know."),
    said(r"So \boxed{", finish_reason="length"),
    said(r"\boxed{maybe}"),
    said(r"\boxed{7}", BROKEN),
    said("", finish_reason="context"),
    said(r"\boxed{0}", BROKEN),
]


def test_training_ctpo_eval_and_verl_count_the_same(tmp_path):
    def policy(chats, seed):
        return [KINDS[seed]] * len(chats)  # one chat a batch: the seed is its number

    along_the_way = evaluate(PROBLEMS[:2], policy, samples_per_problem=4, batch_size=1)
    asked = questions([("a", PROBLEMS[0]), ("b", PROBLEMS[1])], 4, 0)
    with EvaluationDirectory(tmp_path / "out", {}) as directory:
        answer_all(asked, BatchModel(policy, 0, 1), directory)
    answers = list(read_answers(tmp_path / "out"))
    summary = summarize(answers, {"a": {}, "b": {}}, [1])
    rows = [{"source": a.benchmark, "problem": a.problem_id, "outcome": a.outcome} for a in answers]
    assert evaluation_of(rows[::-1]) == along_the_way
    for source, found in along_the_way.by_source.items():
        assert summary["benchmarks"][source]["figures"]["avg@4"] == found.to_dict()
    assert (along_the_way.overall.answers, along_the_way.overall.unknown) == (8, 4)
    assert along_the_way.by_source["a"].mean == 0.25
    assert along_the_way.by_source["b"].problems == 0


def test_the_order_in_which_answers_come_changes_no_figure(tmp_path):
    policy = Scripted(TABLE)
    with EvaluationDirectory(tmp_path / "out", {}) as directory:
        answer_all(
            questions([("a", one) for one in PROBLEMS], 3, 0), BatchModel(policy, 0, 4), directory
        )
    answers = list(read_answers(tmp_path / "out"))
    for seed in range(5):
        shuffled = random.Random(seed).sample(answers, len(answers))
        assert figures(shuffled, [1, 2, 3]) == figures(answers, [1, 2, 3])


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
        return [said("") for _ in chats]

    evaluate(PROBLEMS, policy, samples_per_problem=2, batch_size=1)
    assert PROBLEMS[0].messages == ({"role": "user", "content": "Say 0."},)


def test_the_dictionary_has_the_agreed_shape_and_reads_back():
    result = evaluate(PROBLEMS, Scripted(TABLE), samples_per_problem=3, batch_size=4)
    fields = result.to_dict()
    assert set(fields) == {"samples_per_problem", "overall", "by_source", "by_problem"}
    means = fields["by_problem"]
    assert set(means) == {problem.id for problem in PROBLEMS}
    assert sum(means.values()) / len(means) == pytest.approx(result.overall.mean)
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
            lambda chats, index: [said("")] * number,
            samples_per_problem=1,
            batch_size=1,
        )


def test_an_evaluation_of_nothing_is_refused():
    policy = Scripted(TABLE)
    with pytest.raises(ValueError, match="no problems"):
        evaluate([], policy, samples_per_problem=1, batch_size=1)
    with pytest.raises(ValueError, match="samples per problem is 0"):
        evaluate(PROBLEMS, policy, samples_per_problem=0, batch_size=1)
    with pytest.raises(ValueError, match="batch_size is 0"):
        evaluate(PROBLEMS, policy, samples_per_problem=1, batch_size=0)


def test_two_problems_of_one_name_are_refused():
    with pytest.raises(ValueError, match="a: 2 problems have the name p0"):
        evaluate([PROBLEMS[0]] * 2, Scripted(TABLE), samples_per_problem=1, batch_size=1)
