"""Logged rollouts of any trainer: what is said of them is what the objective says."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from ctpo.cli.app import app
from ctpo.objective import Calibration, preset
from ctpo.report import ReportError, analyze


def rows(number=300, seed=0):
    random = np.random.default_rng(seed)
    made = []
    for i in range(number):
        length = int(random.integers(5, 90))
        old = -np.abs(random.normal(size=length))
        mask = np.ones(length, dtype=int)
        mask[length // 3 : length // 2] = 0
        made.append(
            {
                "old_logprobs": old.tolist(),
                "logprobs": (old + 0.04 * random.normal(size=length)).tolist(),
                "mask": mask.tolist(),
                "advantages": float((-1) ** i),
            }
        )
    return made


def statistics_of(file, objective=None, **options):
    statistics = analyze(file, objective, **options).statistics
    assert statistics is not None, "there are log-probs"
    return statistics


def write(path, made):
    pq.write_table(pa.Table.from_pylist(made), path)
    return path


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return write(tmp_path_factory.mktemp("log") / "log.parquet", rows())


def test_statistics_are_those_of_the_objective_on_all_rows_at_once(log):
    made = rows()
    new, old = (
        [torch.tensor(row[name], dtype=torch.float64) for row in made]
        for name in ("logprobs", "old_logprobs")
    )
    masks = [torch.tensor(row["mask"]) for row in made]
    advantages = torch.tensor([row["advantages"] for row in made], dtype=torch.float64)
    expected = preset("ctpo")(new, old, advantages, masks).statistics.to_columns()
    columns = statistics_of(log).to_columns()
    assert len(made) > 256, "the file must be read in more than one piece"
    for name, values in expected.items():
        assert columns[name] == pytest.approx(values, rel=1e-9, abs=1e-12), name


def test_advantages_by_token_and_bools_and_other_names_are_read(tmp_path, log):
    other = [
        {
            "mu": row["old_logprobs"],
            "pi": row["logprobs"],
            "mask": [bool(m) for m in row["mask"]],
            "advantages": [row["advantages"]] * len(row["mask"]),
        }
        for row in rows()
    ]
    file = write(tmp_path / "other.parquet", other)
    names = {"logprobs": "pi", "old_logprobs": "mu"}
    renamed = statistics_of(file, names=names).to_columns()
    assert renamed == statistics_of(log).to_columns()


def test_the_suggested_window_clips_what_was_asked_for(log):
    suggested = analyze(log, preset("ctpo"), clip_rate=0.1).calibration
    assert isinstance(suggested, Calibration)
    window = suggested.window
    objective = preset(
        "ctpo",
        eps_low=window.eps_low,
        eps_high=window.eps_high,
        dual_clip=window.dual_clip,
        power=window.power,
    )
    statistics = statistics_of(log, objective)
    positive, negative = (
        int(statistics.positive_tokens.sum()),
        int(statistics.negative_tokens.sum()),
    )
    assert int(statistics.clipped_high.sum()) / positive == pytest.approx(0.1, abs=0.005)
    assert int(statistics.clipped_low.sum()) / negative == pytest.approx(0.1, abs=0.005)
    assert int(statistics.clipped_dual.sum()) / negative == pytest.approx(0.1, abs=0.005)


def test_the_fit_finds_the_spread_that_was_put_in(log):
    spread = analyze(log, preset("ctpo")).spread
    assert spread is not None
    assert spread.sigma == pytest.approx(0.04, rel=0.1)
    assert spread.power == pytest.approx(0.5, abs=0.1)


def test_figures_are_drawn(log, tmp_path):
    drawn = analyze(log, preset("ctpo")).draw(tmp_path / "figures")
    assert {path.name for path in drawn} == {
        "clip-rate.png",
        "ratio-spread.png",
        "ratio-drift.png",
    }
    assert all(path.stat().st_size > 10_000 for path in drawn)


def change(index, **values):
    made = rows(4)
    made[index] |= values
    return made


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (change(2, mask=[1, 0]), r"row 2: mask is 2 values; it must be a list of \d+ numbers"),
        (change(1, advantages=None), "row 1: advantages is None"),
        (change(3, logprobs=None), "row 3: logprobs is None; it must be a list of numbers"),
        ([{**row, "mask": [0] * len(row["mask"])} for row in rows(3)], "every mask is 0"),
        (
            [{k: v for k, v in row.items() if k != "logprobs"} for row in rows(2)],
            "lacks two columns of log-probs to compare: it has old_logprobs, mask, advantages",
        ),
        (
            [rows(1)[0] | {"logprobs": [float("nan")] * len(rows(1)[0]["mask"])}],
            "logprobs at row 0, position 0 is nan",
        ),
        ([rows(1)[0] | {"mask": [2] * len(rows(1)[0]["mask"])}], "mask at row 0, position 0 is 2"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_row_and_column(tmp_path, made, message):
    with pytest.raises(ReportError, match=message):
        analyze(write(tmp_path / "bad.parquet", made), preset("ctpo"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ReportError, match="there is no file .*nowhere.parquet"):
        analyze(tmp_path / "nowhere.parquet", preset("ctpo"))


def test_the_command_shows_it_and_its_exit_code_tells_off_policy_from_on(log, tmp_path):
    shown = CliRunner().invoke(app, ["analyze", str(log), "--out", str(tmp_path / "drawn")])
    assert shown.exit_code == 0, shown.stderr
    assert "300 responses" in shown.stdout and "eps_low=" in shown.stdout
    assert (tmp_path / "drawn" / "clip-rate.png").is_file()
    off = CliRunner().invoke(app, ["analyze", str(log), "--on-policy"])
    assert off.exit_code == 1 and "NOT on-policy" in off.stdout
    same = [row | {"logprobs": row["old_logprobs"]} for row in rows(20)]
    file = write(tmp_path / "same.parquet", same)
    on = CliRunner().invoke(app, ["analyze", str(file), "--on-policy"])
    assert on.exit_code == 0 and "the policy has not moved" in on.stdout
