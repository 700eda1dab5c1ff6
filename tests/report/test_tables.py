import pytest

from ctpo.report import HEADINGS, ReportError, before_after, read_run
from ctpo.report.tables import checks, phases


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


def test_a_row_as_text_has_a_cell_for_each_heading(run_dir):
    cells = before_after(run_dir)[0].cells()
    assert cells == ("all", "sampled", "20.0 % (15.0 – 25.0)", "80.0 % (75.0 – 85.0)", "+60.0")
    assert len(cells) == len(HEADINGS)


@pytest.mark.parametrize("name", ["start", "final"])
def test_a_missing_evaluation_is_named(run_dir, name):
    (run_dir / "evaluations" / f"{name}.json").unlink()
    with pytest.raises(ReportError, match=f"{name}.json"):
        before_after(run_dir)


def test_phases_come_longest_first_with_their_shares(run_dir):
    found = [(phase.name, phase.seconds, phase.share) for phase in phases(read_run(run_dir))]
    assert found == [("updates", 210, 0.7), ("tools", 60, 0.2), ("rollouts", 30, 0.1)]


def test_a_check_shows_the_worst_batch(run_dir):
    found = checks(read_run(run_dir))
    assert [(check.metric, check.worst) for check in found] == [("reward/unknown", 0.02)]
