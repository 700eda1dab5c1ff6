"""The figures and what stands beside them."""

import json

import pytest

from ctpo.evaluation import avg_at_k, pass_at_k
from ctpo.evaluation.summary import (
    beside,
    check_ks,
    default_ks,
    figures,
    markdown,
    summarize,
)
from ctpo.tir.trajectory import ToolResult
from tests.evaluation.test_directory import answer

R, W, N = r"\boxed{42}", r"\boxed{41}", "no idea"
UNKNOWN = r"\boxed{42\ldots}"


def answers(table):
    return [
        answer(number, sample, text)
        for number, row in enumerate(table)
        for sample, text in enumerate(row)
    ]


def test_figures_are_those_of_the_scores():
    given = answers([[R, W, N, R], [W, W, W, N]])
    found = figures(given, [1, 2, 4])
    scores = [[1, 0, 0, 1], [0, 0, 0, 0]]
    assert found["avg@4"] == avg_at_k(scores)
    assert found["pass@2"] == pass_at_k(scores, 2)
    assert set(found) == {"avg@4", "pass@1", "pass@2", "pass@4", "maj@2", "maj@4"}
    # Two of three votes are for 42 in the first problem.
    assert found["maj@4"].mean == 0.5


def test_equal_answers_written_differently_vote_together():
    given = answers([[r"\boxed{0.5}", r"\boxed{\frac12}", R]])
    assert figures(given, [3])["maj@3"].mean == 0


def test_what_could_not_be_told_is_counted_and_enters_nothing():
    found = figures(answers([[R, UNKNOWN], [UNKNOWN, UNKNOWN]]), [1])
    assert (found["avg@2"].mean, found["avg@2"].unknown, found["avg@2"].problems) == (1, 3, 1)


def test_beside_the_figures():
    ok = ToolResult("1", "success", "1", None)
    given = [
        answer(0, 0, R, tool_results=[ok, ToolResult("1/0", "error", "", None)]),
        answer(0, 1, R, tool_results=[ToolResult("1", "sandbox-failure", "", "x")]),
        answer(1, 0, N, finish_reason="length"),
        answer(1, 1, N, finish_reason="context"),
    ]
    one = beside(given)
    assert (one.truncated, one.context_full, one.no_answer) == (0.25, 0.25, 0.5)
    assert one.could_not_tell == 0.25
    assert (one.calls_per_answer, one.failed_programs, one.sandbox_failures) == (0.75, 1 / 3, 1)
    assert (one.mean_tokens, one.tokens_per_second) == (5, 10)
    assert one.distinct == 0
    assert beside(answers([[R, W, N]])).distinct == 1
    assert beside(answers([[R], [R]])).distinct is None


def test_k_is_checked_before_any_work():
    assert default_ks(1) == [1]
    assert default_ks(32) == [1, 2, 4, 8, 16, 32]
    assert default_ks(6) == [1, 2, 4, 6]
    check_ks([1, 6], 6)
    for k in (0, 7):
        with pytest.raises(ValueError, match="from 1 to 6"):
            check_ks([1, k], 6)


def test_a_summary_is_json_and_a_table():
    given = answers([[R, W], [UNKNOWN, W]])
    summary = summarize(given, {"lessons": {"source": "here", "revision": None}}, [1, 2])
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    lessons = summary["benchmarks"]["lessons"]
    assert (lessons["problems"], lessons["answers"], lessons["source"]) == (2, 4, "here")
    assert summary["average"]["avg@2"]["mean"] == lessons["figures"]["avg@2"]["mean"]
    text = markdown(summary)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(row.count("|") == rows[0].count("|") for row in rows[:3])
    assert "| lessons | 2 | 25.0 ± 35.4 / 25.0 |" in text
    assert "- lessons: here" in text


def test_the_table_says_where_problems_drop_out_of_a_figure():
    def table(rows):
        summary = summarize(answers(rows), {"lessons": {"source": "x", "revision": "1f"}}, [1, 2])
        return markdown(summary)

    whole = table([[R, W], [W, W], [R, R]])
    assert " of 3)" not in whole
    assert "left out" not in whole
    # One problem has one graded answer, too few for pass@2, and one has none.
    part = table([[R, W], [UNKNOWN, W], [UNKNOWN, UNKNOWN]])
    cells = [cell.strip() for cell in part.splitlines()[2].split("|")[1:-1]]
    assert cells[0:2] == ["lessons", "3"]
    assert [cell.partition(" (")[2] for cell in cells[2:]] == ["2 of 3)"] * 2 + ["1 of 3)"] * 2
    assert "they are left out of it" in part
    none = table([[UNKNOWN, W], [UNKNOWN, UNKNOWN]])
    assert "| – (0 of 2) |" in none
    assert "- lessons: x, revision 1f" in none


def test_other_gold_answers_and_a_part_of_a_benchmark_are_told_beside_the_figures():
    source = {"source": "x", "revision": None, "golds": "other", "of": 30}
    text = markdown(summarize(answers([[R, W]]), {"lessons": source}, [1]))
    assert "not those known of it" in text
    assert "the first 1 of its 30 problems" in text
