"""Rewards of the user's: added with weights, three outcomes apart, nonsense stopped by name."""

import math
from types import SimpleNamespace

import pytest

from ctpo.evaluation.evaluate import evaluate
from ctpo.evaluation.rewards import Rewards
from ctpo.references import reference_to
from ctpo.tasks import Problem, read_problems
from ctpo.tir import ToolResult, Trajectory, Turn


def problem(name="p1", answer="4", **row):
    return Problem(name, ({"role": "user", "content": "?"},), answer, "mine", "test", row=row)


def said(text, **changes):
    turns = [Turn("assistant", 0, 1, text)]
    return Trajectory([1], [2], [True], [-1.0], turns, changes.get("results", []), "answered")


def long(trajectory, problem):
    return len(trajectory.assistant_text)


def of_row(trajectory, problem):
    return problem.row.get("worth")


def named(*functions):
    return [reference_to(f, f"f{i}") for i, f in enumerate(functions)]


def test_rewards_are_added_with_their_weights_and_the_first_is_the_score():
    one, other = named(long, of_row)
    rewards = Rewards({one: 1.0, "grade": 10.0, other: -0.5})
    answers = [said("\\boxed{4}"), said("ab")]
    assert rewards(answers, [problem(worth=3), problem(worth=2)]) == [9 + 10 - 1.5, 2 + 0 - 1]
    assert rewards.first is not None and rewards.first(answers[1], problem()) == 2.0
    assert rewards.means() == {
        f"rewards/{one}": 5.5,
        "rewards/grade": 0.5,
        f"rewards/{other}": 2.5,
    }
    assert Rewards({"grade": 1.0}).first is None  # our grader tells more than a number


def test_where_one_cannot_tell_nobody_can():
    one, other = named(long, of_row)
    rewards = Rewards({one: 1.0, other: 1.0})
    failed = said("abc", results=[ToolResult("", "sandbox-failure", "", "why")])
    answers = [said("ab"), said("ab"), failed]
    asked = [problem(), problem(worth=0), problem(worth=1)]
    assert rewards(answers, asked) == [None, 2.0, None]
    assert rewards.means()[f"rewards/{one}"] == 2.0


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, "1", [1.0], SimpleNamespace()])
def test_what_is_no_finite_number_stops_with_function_and_problem(value):
    (name,) = named(lambda trajectory, problem: value)
    if value == "1":  # a number as text is one
        assert Rewards({name: 1.0})([said("")], [problem()]) == [1.0]
        return
    with pytest.raises((ValueError, TypeError), match=f"'{name}' returned .* the problem 'p1'"):
        Rewards({name: 1.0})([said("")], [problem()])


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({}, "rewards is empty"),
        ({"grade": 0.0}, "rewards.grade is 0.0; a weight must be finite and not 0"),
        ({"grade": math.nan}, "rewards.grade is nan"),
        ({"grad": 1.0}, "rewards.grad is 'grad'; it must be one of grade"),
        ({"json:loads": 1.0}, "rewards.json:loads is 'json:loads', which takes"),
    ],
)
def test_weights_without_sense_are_refused(weights, words):
    with pytest.raises(ValueError, match=words):
        Rewards(weights)


def test_an_error_within_a_reward_names_it_and_the_problem():
    (name,) = named(lambda trajectory, problem: 1 / 0)
    with pytest.raises(ZeroDivisionError) as caught:
        Rewards({name: 1.0})([said("")], [problem()])
    assert caught.value.__notes__ == [f"in the reward {name!r}, for the problem 'p1'"]


def test_an_evaluation_averages_the_reward_it_is_given():
    asked = [problem("a", worth=0.25), problem("b", worth=None), problem("c", worth=0.75)]
    found = evaluate(
        asked,
        lambda chats, seed: [said("") for _ in chats],
        samples_per_problem=2,
        batch_size=4,
        reward=of_row,
    )
    assert found.overall.mean == 0.5


def mixed():
    yield {"question": "1+1?", "answer": 2, "hint": "two"}
    yield problem("own", hint="mine")


@pytest.mark.parametrize("source", [mixed, list(mixed())])
def test_problems_come_from_a_function_or_a_list_as_rows_or_whole(source):
    first, second = read_problems(reference_to(source, "list"))
    assert (first.answer, first.row["hint"]) == ("2", "two")
    assert (second.id, second.row["hint"]) == ("own", "mine")
    assert len(read_problems(reference_to(source, "list"), limit=1)) == 1


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (lambda: 3, "which gives 3; it must give rows or problems"),
        (lambda: [3], "row 1: is 3; it must be a mapping or a Problem"),
        (lambda: [], "no problems"),
        (lambda: [{"question": "?"}], "row 1: answer is missing or null"),
        (lambda: [problem(), problem()], "row 2: id is 'p1'"),
    ],
)
def test_a_function_without_problems_is_told_so(source, words):
    with pytest.raises(ValueError, match=words):
        read_problems(reference_to(source, "f"), field="data.train")
