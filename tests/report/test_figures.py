import json
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ctpo.report import figures, read_run, save_figures, style
from ctpo.report.gallery import KINDS, narrow, save_both
from ctpo.report.words import notes

ALL = {kind.name for kind in KINDS}


def axes_of(figure):
    """What is drawn; beneath figures by position is how many answers there are."""
    return figure.axes[0]


def drawn(run_dir):
    """Names of the figures that there is data for, in both widths."""
    run = read_run(run_dir)
    wide, small = (
        {kind.name for kind in KINDS if kind.draw(run, width) is not None}
        for width in (style.WIDTH, style.NARROW)
    )
    assert wide == small
    return wide


def line(axes, start):
    """The one line whose label starts like this."""
    (found,) = [one for one in axes.lines if str(one.get_label()).startswith(start)]
    return found


def legend(axes):
    return " ".join(text.get_text() for text in axes.get_legend().get_texts())


def test_accuracy_shows_rewards_and_both_ways_of_decoding(run_dir):
    axes = axes_of(figures.accuracy(read_run(run_dir)))
    np.testing.assert_allclose(line(axes, "training").get_ydata(), 0.2 + 0.05 * np.arange(1, 13))
    sampled, greedy = axes.containers
    np.testing.assert_allclose(sampled.lines[0].get_ydata(orig=False), [0.2, 0.5, 0.8])
    np.testing.assert_allclose(greedy.lines[0].get_ydata(orig=False), [0.22, 0.52, 0.82])
    first_bar = sampled.lines[2][0].get_segments()[0]
    np.testing.assert_allclose(first_bar[:, 1], [0.15, 0.25])


def test_the_spread_is_drawn_with_its_fit_by_thirds(run_dir):
    axes = axes_of(figures.ratio_spread(read_run(run_dir)))
    assert legend(axes).count("0.0370") == 3
    early = line(axes, "batches 1–4")
    np.testing.assert_allclose(early.get_ydata(), 0.037 * np.sqrt(early.get_xdata()), rtol=1e-4)
    assert "0.50" in legend(axes)


def test_the_clip_rate_is_drawn_by_bound(run_dir):
    axes = axes_of(figures.clip_rate(read_run(run_dir)))
    rates = {"total": 0.09, "above the w": 0.03, "below the w": 0.05, "above the d": 0.01}
    for label, rate in rates.items():
        np.testing.assert_allclose(line(axes, label).get_ydata(), rate)


def test_a_bound_that_was_never_met_is_not_in_the_legend(run_dir, write_table, position_rows):
    write_table("positions.parquet", [{**row, "clipped_dual": 0} for row in position_rows()])
    axes = axes_of(figures.clip_rate(read_run(run_dir)))
    assert "dual" not in legend(axes)


def test_only_metrics_that_were_written_get_a_panel(run_dir):
    figure = figures.training(read_run(run_dir))
    assert figure is not None
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["response length (tokens)", "entropy (nats per token)", "gradient norm"]
    one = ("", "black", read_run(run_dir))
    both = figures.panels([one, one])
    assert both is not None and [len(axes.lines) for axes in both.axes] == [2, 2, 2]


@pytest.mark.parametrize("draw", [figures.ratio_spread, figures.ratio_drift, figures.clip_rate])
def test_what_few_answers_reach_does_not_stretch_the_axis_and_is_told(
    run_dir, write_table, position_rows, draw
):
    few = [
        {**row, "tokens": 600, "log_rho_sum": -3000, "log_rho_sumsq": 60_000, "clipped_low": 500}
        if 34 <= row["position_low"] <= 36
        else row
        for row in position_rows(tokens=20_000)
        if row["position_low"] <= 36
    ]
    write_table("positions.parquet", few)
    run = read_run(run_dir)
    figure = draw(run)
    low, high = axes_of(figure).get_ylim()
    usual = {figures.ratio_spread: 0.213, figures.ratio_drift: 0.0132, figures.clip_rate: 0.09}
    assert max(abs(low), abs(high)) < 1.5 * usual[draw]
    counts = figure.axes[1].lines[0].get_ydata()
    assert counts[0] > 30 * counts[-1] > 0
    names = {"ratio_spread": "ratio-spread", "ratio_drift": "ratio-drift"}
    note = notes(run)[names.get(draw.__name__, "clip-rate")][0]
    assert "At t = 34–36" in note and "3.0 %, are that long" in note
    assert note.endswith("The axis does not stretch to it.")


def test_figures_are_saved_as_png_and_svg_and_the_same_each_time(run_dir):
    run = read_run(run_dir)
    files = save_figures(run)
    assert set(files) == ALL
    for name, svg in files.items():
        assert svg == run_dir / "figures" / f"{name}.svg"
        assert narrow(svg).is_file()
        assert svg.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    before = [file(files["accuracy"]).read_bytes() for file in (Path, narrow)]
    again = save_both(partial(figures.accuracy, run), run_dir / "figures", "accuracy")
    assert again is not None
    assert [file(again).read_bytes() for file in (Path, narrow)] == before


def test_a_run_without_positions_has_no_figures_of_them(run_dir):
    shutil.rmtree(run_dir / "positions.parquet")
    assert drawn(run_dir) == {"accuracy", "training"}


@pytest.mark.parametrize("tokens", [1, 20_000])
def test_a_run_that_never_left_its_policy_can_be_drawn(run_dir, rewrite_positions, tokens):
    rewrite_positions(batches=[1], sigma=0.0, drift=0.0, tokens=tokens)
    assert drawn(run_dir) == ALL


def test_a_run_of_one_batch_without_metrics_can_be_drawn(run_dir):
    (run_dir / "metrics.jsonl").write_text(json.dumps({"batch": 1}) + "\n")
    assert "training" not in drawn(run_dir)


def test_drawing_leaves_pyplot_alone(run_dir):
    drawn(run_dir)
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
