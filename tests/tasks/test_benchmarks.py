"""Benchmarks: read with their own columns, and refused where they are not what they should be."""

import hashlib
import json
import re
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctpo.tasks import BENCHMARKS, load_benchmark


def _rows(name, count=None):
    """Rows with the columns of the data set on the Hub, and made-up content."""
    benchmark = BENCHMARKS[name]
    gold = {"integer": "{}", "number": "{}.5", "latex": r"\frac{{{}}}{{7}}", "choice": "right {}"}
    rows: list[dict[str, Any]] = []
    for number in range(1, (count or benchmark.count) + 1):
        answer = gold[benchmark.gold].format(number)
        if name == "gsm8k":
            answer = f"We add.\n#### {number:,}"
        row: dict[str, Any] = {benchmark.question: f"What is {number}?", benchmark.answer: answer}
        if name == "olympiadbench":
            row[benchmark.answer] = [f"${number}$"]
        for column in benchmark.wrong_choices:
            row[column] = f"{column} {number}"
        if benchmark.id is not None:
            row[benchmark.id] = number
        rows.append(row)
    return rows


def _file(tmp_path, rows, suffix="jsonl"):
    path = tmp_path / f"some.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_read_from_a_file_with_its_own_columns(name, suffix, tmp_path):
    path = _file(tmp_path, _rows(name), suffix)
    loaded = load_benchmark(f"{name}={path}")
    assert len(loaded.problems) == BENCHMARKS[name].count
    assert len({problem.id for problem in loaded.problems}) == BENCHMARKS[name].count
    assert {problem.source for problem in loaded.problems} == {name}
    assert "What is 1?" in loaded.problems[0].messages[-1]["content"]
    assert loaded.revision == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.source == str(path)


def test_golds_are_taken_out_of_what_stands_around_them(tmp_path):
    def first(name):
        return load_benchmark(f"{name}={_file(tmp_path, _rows(name))}").problems[-1].answer

    assert first("gsm8k") == "1319"
    assert first("olympiadbench") == "674"
    assert first("math500") == r"\frac{500}{7}"


def test_choices_are_shuffled_by_the_question_and_the_gold_is_the_letter(tmp_path):
    problems = load_benchmark(f"gpqa={_file(tmp_path, _rows('gpqa'))}").problems
    for number, problem in enumerate(problems, start=1):
        text = problem.messages[0]["content"]
        letters = dict(re.findall(r"^\(([A-D])\) (.*)$", text, re.MULTILINE))
        assert letters[problem.answer] == f"right {number}"
        assert len(letters) == 4
    assert {problem.answer for problem in problems} == set("ABCD")
    again = load_benchmark(f"gpqa={_file(tmp_path, _rows('gpqa'))}").problems
    assert again == problems


def test_verls_schema_is_read_too(tmp_path):
    rows = [
        {
            "data_source": "math-ai/aime25",
            "prompt": [{"role": "user", "content": f"What is {n}?"}],
            "reward_model": {"ground_truth": f"{n:03d}", "style": "rule"},
            "extra_info": {"index": n, "split": "test"},
        }
        for n in range(30)
    ]
    loaded = load_benchmark(f"aime25={_file(tmp_path, rows, 'parquet')}", limit=3)
    assert [problem.answer for problem in loaded.problems] == ["000", "001", "002"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:29], r"29 problems; AIME 2025 has 30"),
        (lambda rows: rows + [rows[0] | {"problem_idx": 31}], "31 problems"),
        (lambda rows: [rows[0] | {"answer": r"\frac12"}, *rows[1:]], "must be a whole number"),
        (lambda rows: [rows[1], *rows[1:]], "aime25-2.* row 1 has already"),
        (lambda rows: [{"question": "?"}, *rows[1:]], "row 1: aime25 needs the column 'problem'"),
        (lambda rows: [], "no problems"),
    ],
    ids=["too few", "too many", "gold", "duplicate", "column", "empty"],
)
def test_what_is_not_the_benchmark_is_refused_by_name(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load_benchmark(f"aime25={_file(tmp_path, change(_rows('aime25')))}")


def test_an_unknown_benchmark_names_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'aime25'"):
        load_benchmark("aime2025")
    with pytest.raises(ValueError, match="no effect on the file"):
        load_benchmark(f"aime25={_file(tmp_path, _rows('aime25'))}", revision="main")
    with pytest.raises(FileNotFoundError, match="hf download"):
        load_benchmark("aime25=nowhere.parquet")


@pytest.mark.parametrize("name", ["aime25", "gpqa"])
def test_offline_a_missing_data_set_says_what_to_download_where(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    benchmark = BENCHMARKS[name]
    with pytest.raises(FileNotFoundError) as caught:
        load_benchmark(name)
    message = str(caught.value)
    assert f"hf download --repo-type dataset {benchmark.repository}" in message
    assert (benchmark.revision or "--local-dir") in message
    assert ("terms" in message) == benchmark.gated


def test_pins_are_commits():
    for benchmark in BENCHMARKS.values():
        assert benchmark.revision is None or re.fullmatch("[0-9a-f]{40}", benchmark.revision)
