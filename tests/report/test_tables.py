import json

import pytest

from ctpo.report import ReportError, before_after, read_run
from ctpo.report.tables import checks, phases, signed


def test_before_and_after_has_all_problems_and_each_source(run_dir):
    rows = before_after(run_dir)
    assert [(row.decoding, row.source) for row in rows] == [
        ("sampled", "all"),
        ("sampled", "digit_sum"),
        ("sampled", "gcd"),
        ("greedy", "all"),
        ("greedy", "digit_sum"),
        ("greedy", "gcd"),
    ]
    assert rows[0].before.mean == 0.2
    assert rows[0].after.mean == 0.8
    assert rows[0].change == pytest.approx(0.6)


@pytest.mark.parametrize("name", ["start", "final"])
def test_a_missing_evaluation_is_named(run_dir, name):
    (run_dir / "evaluations" / f"{name}.json").unlink()
    with pytest.raises(ReportError, match=f"{name}.json"):
        before_after(run_dir)


def test_phases_come_longest_first_with_their_shares(run_dir):
    found = [(phase.name, phase.seconds, phase.share) for phase in phases(read_run(run_dir))]
    assert found == [("updates", 210, 0.7), ("tools", 60, 0.2), ("rollouts", 30, 0.1)]


def test_a_check_shows_the_worst_batch_and_whether_it_keeps_the_limit(run_dir):
    found = checks(read_run(run_dir))
    assert [(c.metric, c.worst, c.passed) for c in found] == [("reward/unknown", 0.02, True)]
    lines = [
        {"batch": 1, "reward/unknown": 0.5, "ess": 0.99, "on_policy/log_rho_max": -0.0},
        {"batch": 2, "reward/unknown": 0.0, "ess": 0.1, "on_policy/log_rho_max": 1e-7},
    ]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    texts = {c.metric: (c.value, c.passed) for c in checks(read_run(run_dir))}
    assert texts["reward/unknown"] == ("0.5", False)
    assert texts["ess"] == ("0.1", False)
    assert texts["on_policy/log_rho_max"] == ("1e-07", True)


@pytest.mark.parametrize(
    ("value", "text"), [(-0.0, "+0.0"), (-0.04, "+0.0"), (-0.06, "-0.1"), (2.25, "+2.2")]
)
def test_what_rounds_to_nothing_has_no_minus(value, text):
    assert signed(value, 1) == text
