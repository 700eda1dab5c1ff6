"""The generated cases: they are many, they are what they say, and grading decides them."""

from collections import Counter

from ctpo.grading import grade
from tests.grading.corpus.cases import cases_of, corpus

CASES = corpus(per_family=2, seed=1)


def test_no_wrong_answer_is_called_right_and_no_right_one_wrong():
    outcomes = [(grade(case.response, case.gold).outcome, case) for case in CASES]
    assert [c for outcome, c in outcomes if outcome == "right" and not c.right] == []
    assert [c for outcome, c in outcomes if outcome == "wrong" and c.right] == []
    unknown = [case for outcome, case in outcomes if outcome == "could-not-tell"]
    assert len(unknown) < 0.005 * len(CASES), unknown


def test_every_gold_answer_is_right_against_itself():
    itself = [case for case in CASES if case.change == "itself"]
    assert len(itself) == 2 * len({case.family for case in CASES}) == 42
    assert {grade(case.response, case.gold).outcome for case in itself} == {"right"}


def test_the_seed_decides_the_cases_and_every_family_has_both_kinds():
    assert corpus(per_family=2, seed=1) == CASES != corpus(per_family=2, seed=2)
    kinds = Counter((case.family, case.right) for case in CASES)
    assert len(kinds) == 2 * len({case.family for case in CASES})
    assert all(case.answer != case.gold for case in CASES if case.change != "itself")


def test_a_gold_answer_of_ones_own_gets_the_same_treatment():
    cases = cases_of("073")
    changes = {case.change: case.answer for case in cases}
    assert changes["off by one"] == "74"
    assert changes["degrees"] == r"73^\circ"
    assert {grade(case.response, "073").outcome for case in cases if case.right} == {"right"}
    assert {grade(case.response, "073").outcome for case in cases if not case.right} == {"wrong"}
