"""Problems of reasoning-gym, and its own verdict on answers to them."""

import importlib.util
from types import SimpleNamespace

import pytest

from ctpo.evaluation.rewards import Rewards
from ctpo.tasks import Problem, read_problems

needs_it = pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None,
    reason="reasoning-gym is not installed: pip install reasoning-gym",
)


def scores(problem, *texts):
    answers = [SimpleNamespace(assistant_text=text, sandbox_failed=False) for text in texts]
    return Rewards({"reasoning-gym": 1.0})(answers, [problem] * len(texts))


@needs_it
def test_families_take_turns_and_held_out_questions_are_others():
    source = "reasoning-gym:chain_sum,leg_counting"
    train = read_problems(source, split="train", limit=5)
    assert [p.source for p in train] == ["chain_sum", "leg_counting"] * 2 + ["chain_sum"]
    held_out = read_problems(source, split="held-out", limit=5)
    assert not {p.messages[0]["content"] for p in train} & {
        p.messages[0]["content"] for p in held_out
    }
    assert train == read_problems(source, split="train", limit=5)


@needs_it
def test_the_family_says_what_is_right():
    (problem,) = read_problems("reasoning-gym:chain_sum", limit=1)
    right, wrong = f"\\boxed{{{problem.answer}}}", "\\boxed{12345678}"
    assert scores(problem, right, problem.answer, "\\boxed{", "") == [1.0, 0.0, 0.0, 0.0]
    (score,) = scores(problem, wrong)
    assert score is not None and score < 0.1


@needs_it
@pytest.mark.slow
def test_no_family_is_upset_by_junk_and_each_knows_its_own_answer():
    from reasoning_gym.factory import DATASETS

    for name in sorted(set(DATASETS) - {"composite"}):
        (problem,) = read_problems(f"reasoning-gym:{name}", limit=1)
        for score in scores(problem, "\\boxed{junk +}", "\\boxed{1}", "none"):
            assert score is None or 0.0 <= score <= 1.0, name
    (primes,) = read_problems("reasoning-gym:prime_factorization", limit=1)
    assert scores(primes, "\\boxed{junk}") == [0.0]  # the family itself raises


@needs_it
def test_an_unknown_family_is_told():
    with pytest.raises(ValueError, match="no family 'chain_sums'; it has .*chain_sum"):
        read_problems("reasoning-gym:chain_sums")


def test_others_problems_are_not_its_to_grade():
    other = Problem("p", ({"role": "user", "content": "?"},), "1", "x", "test")
    with pytest.raises(ValueError, match="not reasoning-gym's"):
        scores(other, "\\boxed{1}")


@pytest.mark.skipif(not needs_it.args[0], reason="reasoning-gym is installed")
def test_without_it_the_reader_says_what_to_install():
    with pytest.raises(ValueError, match="pip install reasoning-gym"):
        read_problems("reasoning-gym:chain_sum")
