"""The kinds of notation people report: right where right, and never right where wrong."""

from collections import defaultdict
from pathlib import Path

import pytest

from ctpo.grading import grade

OUTCOMES = {"R": "right", "W": "wrong", "U": "could-not-tell"}


def read_kinds():
    kinds, kind = defaultdict(list), ""
    for line in Path(__file__).with_name("kinds.txt").read_text().splitlines():
        if line.startswith("## "):
            kind = line[3:]
        elif line and not line.startswith("#"):
            answer, gold, verdict = line.rsplit(" | ", 2)
            kinds[kind].append((answer, gold, OUTCOMES[verdict]))
    return kinds


KINDS = read_kinds()


def outcome(answer, gold):
    response = answer.removeprefix("TEXT:")
    return grade(response if response != answer else rf"\boxed{{{answer}}}", gold).outcome


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_graded_as_a_careful_person_would(kind):
    found = [(answer, gold, right, outcome(answer, gold)) for answer, gold, right in KINDS[kind]]
    assert [row for row in found if row[3] == "right" != row[2]] == []
    assert [row for row in found if row[2] == "right" != row[3]] == []
    assert [row for row in found if row[2] == "could-not-tell" != row[3]] == []


def test_every_kind_has_siblings_of_both_sorts():
    for kind, rows in KINDS.items():
        assert len(rows) >= 8, kind
        assert kind in ("prose",) or {"right", "wrong"} <= {row[2] for row in rows}, kind
