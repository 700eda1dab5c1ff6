"""Statistics by position on their own: pooled they say what the statistics' sum does."""

from functools import reduce
from operator import add

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ctpo.cli.app import app
from ctpo.engines.batch_files import write_positions
from ctpo.objective import preset
from ctpo.report import ReportError, analyze_positions, holds_positions


@pytest.fixture(scope="module")
def batches(make_batch):
    return [preset("ctpo")(*make_batch(60, 40, seed=seed)).statistics for seed in range(3)]


@pytest.fixture(scope="module")
def written(batches, tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "positions.parquet"
    directory.mkdir()
    for number, statistics in enumerate(batches, start=1):
        write_positions(directory, statistics, number)
    return directory


def test_batches_pool_to_their_sum(batches, written):
    analysis = analyze_positions(written)
    whole = reduce(add, batches)
    expected = whole.to_columns()
    assert analysis.columns.keys() == expected.keys()
    for name, column in expected.items():
        assert analysis.columns[name].tolist() == pytest.approx(column, rel=1e-12), name
    summary = whole.summary()
    for name, key in {"high": "clip/high", "low": "clip/low", "ess": "ess"}.items():
        assert analysis.measured[name].value == pytest.approx(summary[key]), name
    assert analysis.positions.batches.tolist() == [1, 2, 3]
    assert analysis.spread is not None
    assert analysis.spread.sigma == pytest.approx(whole.spread_fit(), rel=0.01)


def test_one_file_is_one_batch(batches, written):
    analysis = analyze_positions(written / "batch-0002.parquet")
    assert analysis.columns["tokens"].tolist() == batches[1].to_columns()["tokens"]


def test_the_table_ends_where_the_longest_response_does(written):
    rows = analyze_positions(written).table(5)
    assert rows[0]["first"] == 1 and len(rows) == 5
    assert rows[-1]["last"] <= 40


def test_other_tables_are_not_taken_for_positions(tmp_path, written):
    other = tmp_path / "log.parquet"
    pq.write_table(pa.table({"logprobs": [[0.1]]}), other)
    assert holds_positions(written) and not holds_positions(other)
    assert not holds_positions(tmp_path / "missing")
    pq.write_table(pa.table({"batch": [1], "position_low": [1]}), other)
    with pytest.raises(ReportError, match="lacks the column position_high"):
        analyze_positions(other)


def ctpo(*arguments):
    return CliRunner().invoke(app, ["analyze", *map(str, arguments)])


def test_the_command_shows_and_draws_them(batches, written, tmp_path):
    done = ctpo(written, "--out", tmp_path / "figures")
    assert done.exit_code == 0, done.output
    tokens = int(reduce(add, batches).tokens.sum())
    assert f"3 batches, {tokens} policy tokens" in done.stdout
    assert "std(log ρ) grows as t^" in done.stdout
    drawn = {path.stem for path in (tmp_path / "figures").iterdir()}
    assert {"clip-rate", "ratio-spread", "ratio-drift"} <= drawn


def test_an_option_that_needs_log_probs_is_refused(written):
    done = ctpo(written, "--on-policy")
    assert done.exit_code != 0
    assert "--on-policy needs log-probs" in done.output
