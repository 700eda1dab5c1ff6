import json
import shutil
import sys

import numpy as np
import pytest

from ctpo.report import figures, read_run, save_figures
from ctpo.report.gallery import KINDS

ALL = {kind.name for kind in KINDS}


def axes_of(figure):
    (axes,) = figure.axes
    return axes


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


def test_figures_are_saved_as_png_and_svg_and_the_same_each_time(run_dir):
    run = read_run(run_dir)
    files = save_figures(run)
    assert set(files) == ALL
    for name, svg in files.items():
        assert svg == run_dir / "figures" / f"{name}.svg"
        assert svg.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    before = {name: svg.read_bytes() for name, svg in files.items()}
    assert {name: svg.read_bytes() for name, svg in save_figures(run).items()} == before


def test_a_run_without_positions_has_no_figures_of_them(run_dir):
    shutil.rmtree(run_dir / "positions.parquet")
    assert set(save_figures(read_run(run_dir))) == {"accuracy", "training"}


@pytest.mark.parametrize("tokens", [1, 20_000])
def test_a_run_that_never_left_its_policy_can_be_drawn(run_dir, rewrite_positions, tokens):
    rewrite_positions(batches=[1], sigma=0.0, drift=0.0, tokens=tokens)
    assert set(save_figures(read_run(run_dir))) == ALL


def test_a_run_of_one_batch_without_metrics_can_be_drawn(run_dir):
    (run_dir / "metrics.jsonl").write_text(json.dumps({"batch": 1}) + "\n")
    assert "training" not in save_figures(read_run(run_dir))


def test_drawing_leaves_pyplot_alone(run_dir):
    save_figures(read_run(run_dir))
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()
