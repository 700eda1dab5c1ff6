"""Tables of made-up runs against numbers counted by hand, and the page's words."""

import math
import tomllib

import numpy as np
import pytest

from ctpo.studies.figures import FIGURES
from ctpo.studies.results import results
from ctpo.studies.statistics import holm, sign_flip
from ctpo.studies.study import Study, StudyError
from ctpo.studies.tables import batches_until, tables
from tests.studies.test_study import TUNED


@pytest.fixture
def study(small):
    values = tomllib.loads(small)
    values |= {
        "axes": {"rate": {"low": [], "high": [], "top": []}},
        "seeds": [0, 1, 2, 3],
        "threshold": 0.6,
        "headroom": {"axis": "rate", "sound": 0.75, "margin": 0.05},
    }
    return Study.model_validate(values)


def run(
    method, rate, seed, final, *, start=0.3, middle=0.6, kl=0.2, ess=0.9, warm="w", phase="test"
):
    common = {
        "phase": phase,
        "method": method,
        "seed": seed,
        "warm_start": warm,
        "state": "done" if final is not None else "failed",
        "error": None if final is not None else "ValueError: x",
        "axis.rate": rate,
    }
    if final is None:
        return [common]
    clip = {"clip_high": 0.01, "clip_low": 0.02, "clip_dual": 0.0}
    curve = {0: start, 10: middle, 20: final}
    return [
        common
        | {"evaluation": f"batch-{b}", "batch": b, "updates": 4 * b, "sampled": value}
        | {"kl": kl, "ess": ess, "position": [1.0, 2.0], "clip_by_position": [0.1, 0.2]}
        | clip
        for b, value in curve.items()
    ]


def made_up():
    rows = []
    for rate, loss in (("low", 0.0), ("high", 0.02), ("top", 0.2)):
        for seed in range(4):
            noise = 0.1 * seed
            rows += run("grpo", rate, seed, 0.5 + noise - loss)
            lost = rate == "top" and seed == 3
            rows += run("ctpo", rate, seed, 0.1 if lost else 0.6 + noise - loss)
    return results(rows)


def by_name(study, runs):
    return {table.name: table for table in tables(study, runs)}


def line(table, *start):
    (found,) = [row for row in table.rows if row[: len(start)] == start]
    return dict(zip(table.columns, found, strict=True))


def test_outcomes_are_those_counted_by_hand(study):
    table = by_name(study, made_up())["small-outcomes"]
    low = line(table, "low", "grpo")
    assert low["runs"] == "4 of 4"
    assert low["mean (95 %)"].startswith("65.0 (")  # .5 .6 .7 .8
    assert low["interquartile mean (95 %)"].startswith("65.0 (")
    assert (low["collapsed"], low["failed"], low["clipped"]) == (0, 0, "3.0 %")
    top = line(table, "top", "ctpo")
    assert top["mean (95 %)"].startswith("40.0 (")  # .4 .5 .6 and .1, which stays
    assert top["collapsed"] == 1
    every = line(table, "all", "ctpo")
    assert every["runs"] == "12 of 12" and every["collapsed"] == 1
    assert every["mean (95 %)"].startswith(f"{100 * (0.75 + 0.73 + 0.4) / 3:.1f} (")


def test_differences_are_paired_by_seed_and_level(study):
    table = by_name(study, made_up())["small-less-grpo"]
    low = line(table, "low", "ctpo − grpo")
    # Every pair differs by ten points, so seeds' own differences leave no interval.
    assert low["pairs"] == 4 and low["points (95 %)"] == "+10.0 (+10.0 to +10.0)"
    assert low["p"] == "0.125"
    p_values = [2 / 16, 2 / 16, sign_flip([0.1, 0.1, 0.1, -0.5])]
    every = sign_flip([0.1] * 8 + [0.1, 0.1, 0.1, -0.5])
    expected = [f"{p:.3f}" for p in holm([*p_values, every])]
    assert [row[-1] for row in table.rows] == expected


def test_another_reference_turns_the_differences_round(study):
    table = by_name(study.compared_with("ctpo"), made_up())["small-less-ctpo"]
    assert line(table, "low", "grpo − ctpo")["points (95 %)"] == "-10.0 (-10.0 to -10.0)"
    with pytest.raises(StudyError, match=r"reference is 'ctp' \(did you mean 'ctpo'"):
        study.compared_with("ctp")


def test_runs_of_another_warm_start_are_no_pair(study):
    rows = [row for seed in range(4) for row in run("grpo", "low", seed, 0.5)]
    rows += [row for seed in range(3) for row in run("ctpo", "low", seed, 0.6)]
    rows += run("ctpo", "low", 3, 0.1, warm="other")
    table = by_name(study, results(rows))["small-less-grpo"]
    low = line(table, "low", "ctpo − grpo")
    assert low["pairs"] == 3 and low["points (95 %)"].startswith("+10.0")


def test_a_failed_run_is_counted_and_has_no_outcome(study):
    rows = [row for seed in range(3) for row in run("grpo", "low", seed, 0.5)]
    rows += run("grpo", "low", 3, None)
    low = line(by_name(study, results(rows))["small-outcomes"], "low", "grpo")
    assert (low["runs"], low["failed"]) == ("3 of 4", 1) and low["mean (95 %)"].startswith("50.0")


@pytest.mark.parametrize(
    ("final", "kl", "ess", "collapsed"),
    [
        (0.14, 0.2, 0.9, True),  # below half of the first
        (0.16, 0.2, 0.9, False),
        (0.9, 5.0, 0.9, False),  # moved far, and its weights still count
        (0.9, 0.2, 0.01, False),
        (0.9, 5.0, 0.01, True),
        (0.9, None, None, True),  # not a number
    ],
)
def test_a_run_has_collapsed_by_accuracy_or_by_kl_and_ess_together(
    study, final, kl, ess, collapsed
):
    (one,) = results(run("ctpo", "low", 0, final, kl=kl, ess=ess))
    assert one.collapsed(study) is collapsed


def test_batches_until_the_threshold_are_those_of_the_first_evaluation_above(study):
    (early,) = results(run("ctpo", "low", 0, 0.4, middle=0.6))
    (late,) = results(run("ctpo", "low", 0, 0.7, middle=0.5))
    (never,) = results(run("ctpo", "low", 0, 0.4, middle=0.5))
    assert [batches_until(study, one) for one in (early, late, never)] == [10, 20, math.inf]


def test_the_mean_outcome_leaves_out_what_was_before_training(study):
    other = study.model_copy(update={"outcome": "mean"})
    (one,) = results(run("ctpo", "low", 0, 0.8, start=0.1, middle=0.6))
    assert one.outcome(study) == 0.8 and one.outcome(other) == pytest.approx(0.7)


def test_headroom_is_the_farthest_level_with_enough_sound_runs(study):
    # The best mean is ctpo's at low, .75; sound are runs from .70.
    table = by_name(study, made_up())["small-headroom"]
    assert line(table, "ctpo") == {
        "method": "ctpo", "rate low": 3, "rate high": 2, "rate top": 0, "farthest": "low"
    }  # fmt: skip
    assert line(table, "grpo")["farthest"] == "none"


def test_what_was_tried_in_the_tuning_stands_in_a_table_with_what_won(small):
    study = Study.model_validate(
        tomllib.loads(small + TUNED.split("[tuning.axes.clip.published]")[0].split("[tuning]")[0])
        | {"tuning": {"seeds": [9], "axes": {"rate": {"low": [], "high": []}}}}
    )
    rows = []
    for method in study.methods:
        for updates in ("2", "1"):
            for rate, final in (("low", 0.4), ("high", 0.5)):
                made = run(method, rate, 9, final, phase="tuning")
                rows += [row | {"axis.updates": updates} for row in made]
            rows += [r | {"axis.updates": updates} for r in run(method, "high", 0, 0.5)]
    table = by_name(study, results(rows))["small-tuning"]
    assert [row[-1] for row in table.rows] == ["", "chosen"] * 4
    assert table.rows[0] == ("ctpo", "2", "low", 1, "40.0", "")


def test_every_figure_is_drawn_with_a_line_for_each_method(study):
    for draw, _ in FIGURES.values():
        figure = draw(study, made_up())
        assert figure is not None
        assert len(figure.axes) == 3
        assert {x.get_label() for x in figure.axes[0].lines} == {"ctpo", "grpo"}
        assert all(np.isfinite(x.get_ydata()).all() for x in figure.axes[0].lines)
