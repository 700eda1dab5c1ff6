import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from ctpo.report import ReportError, read_run


@pytest.mark.parametrize("name", ["recipe.toml", "metrics.jsonl"])
def test_a_required_file_that_is_missing_is_named(run_dir, name):
    (run_dir / name).unlink()
    with pytest.raises(ReportError, match=name):
        read_run(run_dir)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("timing.json", "{"),
        ("environment.json", "none"),
        ("evaluations/final.json", '{"batch": 3, "sampled": {"overall": {}}}'),
        ("positions.parquet/batch-0001.parquet", "no parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(run_dir, name, content):
    (run_dir / name).write_text(content)
    with pytest.raises(ReportError, match=name):
        read_run(run_dir)


def test_a_broken_line_of_metrics_is_named(run_dir):
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"batch": 13, "rew')
    with pytest.raises(ReportError, match="line 13"):
        read_run(run_dir)


def test_a_positions_file_without_its_columns_says_which(run_dir, write_table):
    write_table("positions.parquet", [{"batch": 1, "tokens": 5}])
    with pytest.raises(ReportError, match="log_rho_sum"):
        read_run(run_dir)


def test_a_series_leaves_out_missing_values(run_dir):
    batches, values = read_run(run_dir).series("entropy")
    assert list(batches) == [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert values[0] == pytest.approx(0.873)


def test_a_series_that_was_never_written_is_empty(run_dir):
    batches, values = read_run(run_dir).series("clip/high")
    assert len(batches) == len(values) == 0


def test_evaluations_come_in_the_order_of_their_batches(run_dir):
    assert list(read_run(run_dir).evaluations) == ["start", "batch-0006", "final"]


def test_greedy_evaluation_may_be_absent(run_dir):
    file = run_dir / "evaluations" / "final.json"
    content = json.loads(file.read_text())
    del content["greedy"]
    file.write_text(json.dumps(content))
    assert list(read_run(run_dir).evaluations["final"].decodings) == ["sampled"]


def test_a_mean_over_nothing_is_nan(run_dir):
    file = run_dir / "evaluations" / "start.json"
    content = json.loads(file.read_text())
    content["sampled"]["overall"] |= dict.fromkeys(("mean", "low", "high", "clustered_error"))
    file.write_text(json.dumps(content))
    score = read_run(run_dir).evaluations["start"].decodings["sampled"].overall
    assert np.isnan(score.mean)
    assert str(score) == "–"


def test_a_table_may_be_one_file_instead_of_a_directory(run_dir):
    before = read_run(run_dir).positions
    assert before is not None
    table = pq.read_table(run_dir / "positions.parquet")
    shutil.rmtree(run_dir / "positions.parquet")
    pq.write_table(table, run_dir / "positions.parquet")
    after = read_run(run_dir).positions
    assert after is not None
    np.testing.assert_array_equal(before.pool().std, after.pool().std)


def test_a_table_without_a_batch_yet_is_absent(run_dir, write_table):
    write_table("positions.parquet", [])
    assert read_run(run_dir).positions is None
