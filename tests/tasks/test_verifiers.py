"""Tasks of verifiers, scored by themselves."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest

from ctpo.evaluation.rewards import Rewards
from ctpo.tasks import Problem, read_problems

INSTALLED = importlib.util.find_spec("verifiers") is not None
needs_it = pytest.mark.skipif(not INSTALLED, reason="verifiers is not installed")


def scores(problem, *texts):
    answers = [
        SimpleNamespace(
            turns=[SimpleNamespace(role="assistant", text=text)],
            assistant_text=text,
            sandbox_failed=False,
        )
        for text in texts
    ]
    return Rewards({"verifiers": 1.0})(answers, [problem] * len(texts))


@needs_it
def test_a_tasksets_tasks_are_problems_and_score_their_answers(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent / "tasksets")
    first, second = read_problems("verifiers:shouting", limit=2)
    assert [m["content"] for m in first.messages] == ["You shout.", "Shout yes."]
    assert (first.id, second.id, second.source) == ("shouting-0", "shouting-1", "shouting")
    assert scores(first, "YES", "It is YES", "NO", "", "fire") == [1.5, 1.0, 0.5, 0.0, None]


@needs_it
def test_an_unknown_taskset_is_told():
    with pytest.raises(ValueError, match="verifiers:no-such: taskset 'no-such' not found"):
        read_problems("verifiers:no-such")


def test_others_problems_are_not_its_to_grade():
    other = Problem("p", ({"role": "user", "content": "?"},), "1", "x", "test")
    with pytest.raises(ValueError, match="of no taskset of verifiers"):
        scores(other, "1")


@pytest.mark.skipif(INSTALLED, reason="verifiers is installed")
def test_without_it_the_reader_says_what_to_install():
    with pytest.raises(ValueError, match="pip install 'verifiers>=0.4'"):
        read_problems("verifiers:shouting")
