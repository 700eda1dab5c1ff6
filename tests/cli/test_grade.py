"""`ctpo grade`, as a user types it."""

import json

import pytest
from typer.testing import CliRunner

from ctpo.cli.app import app


def run(file, *arguments):
    return CliRunner().invoke(app, ["grade", str(file), *map(str, arguments)])


def written(tmp_path, *rows):
    file = tmp_path / "answers.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return file


def test_a_files_outcomes_are_counted_and_the_open_ones_listed_with_both_readings(tmp_path):
    rows = [
        {"answer": "1/2", "gold": "0.5"},
        {"response": r"So \boxed{3} and \boxed{4}.", "gold": "4, 3"},
        {"answer": "x^2", "gold": "x^3"},
        {"answer": "1,234", "gold": "1, 234"},
    ]
    shown = run(written(tmp_path, *rows))
    assert shown.exit_code == 2
    counts = {
        line.split()[0]: line.split()[1:] for line in shown.stdout.splitlines() if line.split()
    }
    assert counts["right"] == ["2", "50.0%"]
    assert counts["wrong"] == counts["could-not-tell"] == ["1", "25.0%"]
    (listed,) = [line for line in shown.stdout.splitlines() if line.startswith("line")]
    assert listed.startswith("line 4  could-not-tell")
    assert "answer read as 1234 or 1, 234; gold read as 1, 234" in listed


def test_without_doubts_the_exit_code_is_0_and_explain_lists_the_wrong_ones(tmp_path):
    file = written(tmp_path, {"answer": 5, "gold": 5}, {"answer": "6 cm", "gold": "5"})
    assert run(file).exit_code == 0
    assert "line" not in run(file).stdout
    assert "line 2  wrong" in run(file, "--explain").stdout
    assert "answer read as 6 [cm]" in run(file, "--explain").stdout


def test_the_rows_can_be_written_with_their_outcomes(tmp_path):
    file = written(tmp_path, {"id": "a", "answer": "5", "gold": "6"})
    run(file, "--output", tmp_path / "out.jsonl")
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert (row["id"], row["outcome"]) == ("a", "wrong")
    assert row["reason"]


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("{", "line 2: no JSON"),
        ("[1]", "line 2: '[1]' is no JSON object"),
        ('{"answer": "1"}', "line 2: a row needs gold"),
        ('{"answer": "1", "response": "1", "gold": "1"}', "either answer or response"),
        ('{"answer": ["1"], "gold": "1"}', "line 2: answer must be text or a number, not list"),
        ('{"answer": "1", "gold": null}', "line 2: gold must be text or a number, not NoneType"),
        ('{"answer": "1", "gold": [1, true]}', "line 2: gold[1] must be text or a number, not bo"),
        ('{"answer": "1", "gold": NaN}', "line 2: gold is nan; a number must be finite"),
        ('{"answer": "1", "gold": ["1", Infinity]}', "line 2: gold[1] is inf; a number must be"),
        ('{"answer": NaN, "gold": "nan"}', "line 2: answer is nan; a number must be finite"),
    ],
)
def test_a_bad_row_is_named_with_its_file_and_line(bad, told, tmp_path):
    file = written(tmp_path, {"answer": "1", "gold": "1"}, bad)
    shown = run(file)
    assert shown.exit_code == 1
    assert told in shown.stderr and str(file) in shown.stderr
    assert "Traceback" not in shown.output


def test_a_file_that_is_missing_or_empty_is_told_in_one_line(tmp_path):
    for file in (tmp_path / "none.jsonl", written(tmp_path, "")):
        shown = run(file)
        assert shown.exit_code == 1
        assert len(shown.stderr.strip().splitlines()) == 1 and str(file) in shown.stderr


def test_a_malformed_gold_is_told_in_one_line_and_not_scored(tmp_path):
    shown = run(written(tmp_path, {"answer": "1", "gold": r"\boxed{1"}))
    assert shown.exit_code == 2
    assert "the gold answer is malformed: the last box is not closed" in shown.stdout
    assert "Traceback" not in shown.output


def test_a_byte_order_mark_and_separators_within_a_line_are_read_over(tmp_path):
    file = tmp_path / "answers.jsonl"
    row = json.dumps({"answer": "1 ", "gold": "1"}, ensure_ascii=False)
    file.write_bytes(b"\xef\xbb\xbf" + row.encode() + b"\r\n")
    assert run(file).exit_code == 0


def test_of_a_list_of_golds_each_is_right(tmp_path):
    rows = [{"answer": answer, "gold": ["1/3", 0.5]} for answer in ("0.5", "1/3", "1/4")]
    table = run(written(tmp_path, *rows)).stdout
    assert ["right", "2", "66.7%"] in [line.split() for line in table.splitlines()]


@pytest.mark.parametrize("timeout", ["inf", "nan", "0", "-1", "1e9"])
def test_a_timeout_without_effect_is_refused(timeout, tmp_path):
    shown = run(written(tmp_path, {"answer": "x", "gold": "2x"}), "--timeout", timeout)
    assert shown.exit_code == 1 and "timeout must be from" in shown.stderr


@pytest.mark.parametrize("column", ["outcome", "reason"])
def test_output_writes_over_no_column_of_the_rows(column, tmp_path):
    file = written(tmp_path, {"answer": "5", "gold": "5"}, {"answer": "5", "gold": "5", column: 1})
    assert run(file).exit_code == 0
    shown = run(file, "--output", tmp_path / "out.jsonl")
    assert shown.exit_code == 1 and f"line 2: it has {column}" in shown.stderr
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("name", ["answers.jsonl", "folder/../answers.jsonl", "link", "."])
def test_output_is_neither_the_file_that_is_graded_nor_a_directory(name, tmp_path):
    file = written(tmp_path, {"answer": "5", "gold": "5"})
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "folder").mkdir()
    before = file.read_text()
    shown = run(file, "--output", tmp_path / name)
    assert shown.exit_code == 1 and "--output is" in shown.stderr
    assert file.read_text() == before


def test_output_replaces_an_earlier_one_and_makes_its_folder(tmp_path):
    file = written(tmp_path, {"answer": 5, "gold": [5]})
    for _ in range(2):
        assert run(file, "--output", tmp_path / "new" / "out.jsonl").exit_code == 0
    (row,) = (tmp_path / "new" / "out.jsonl").read_text().splitlines()
    assert json.loads(row) | {"reason": ""} == {
        "answer": 5, "gold": [5], "outcome": "right", "reason": ""
    }  # fmt: skip
