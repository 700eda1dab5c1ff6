"""Benchmarks: read with their own columns, and refused where they are not what they should be."""

import csv
import dataclasses
import hashlib
import json
import re
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctpo.tasks import BENCHMARKS, load_benchmark
from ctpo.tasks.benchmark_checks import digest
from ctpo.tasks.benchmark_loading import _resolved


@pytest.fixture(autouse=True)
def made_up_golds_are_known(monkeypatch):
    """Real gold answers are not part of the project, so those made up here are the known ones."""
    for name, benchmark in BENCHMARKS.items():
        golds = [str(_gold(row, benchmark)) for row in _rows(name)]
        known = digest(golds) if benchmark.golds else None
        monkeypatch.setitem(BENCHMARKS, name, dataclasses.replace(benchmark, golds=known))


def _gold(row, benchmark):
    return str(row[benchmark.answer]).rpartition("####")[2].replace(",", "")


def _rows(name, count=None):
    """Rows with the columns of the data set on the Hub, and content made up for each benchmark."""
    benchmark = BENCHMARKS[name]
    own = 10 + list(BENCHMARKS).index(name)
    gold = {
        "integer": f"{own}{{}}",
        "number": "{}.5",
        "latex": rf"\frac{{{{{{}}}}}}{{{{{own}}}}}",
        "choice": "right {}",
    }
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
    assert first("math500") == r"\frac{500}{18}"


def test_gpqa_is_read_from_the_csv_file_that_the_hub_has(tmp_path):
    path = tmp_path / "gpqa_diamond.csv"
    rows = [row | {"Explanation": 'Two lines,\n"quoted".'} for row in _rows("gpqa")]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    same = load_benchmark(f"gpqa={_file(tmp_path, _rows('gpqa'))}")
    assert load_benchmark(f"gpqa={path}").problems == same.problems


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
    loaded = load_benchmark(f"aime25={_file(tmp_path, _verl_rows('aime25'), 'parquet')}", limit=3)
    assert [problem.answer for problem in loaded.problems] == ["0111", "0112", "0113"]
    assert loaded.golds == "known"


def _verl_rows(name, data_source=None):
    return [
        {
            "data_source": data_source or f"math-ai/{name}",
            "prompt": [{"role": "user", "content": row["problem"]}],
            "reward_model": {"ground_truth": f"0{row['answer']}", "style": "rule"},
            "extra_info": {"index": number, "split": "test"},
        }
        for number, row in enumerate(_rows(name))
    ]


def test_a_file_of_another_benchmark_is_refused_by_what_it_says_and_by_its_golds(tmp_path):
    def load(name, rows):
        return load_benchmark(f"{name}={_file(tmp_path, rows)}")

    with pytest.raises(ValueError, match="row 1: data_source is 'math-ai/aime24', which is AIME 2"):
        load("aime25", _verl_rows("aime24"))
    with pytest.raises(ValueError, match="gold answers are those of AIME 2024, not of AIME 2025"):
        load("aime25", _verl_rows("aime24", "competition"))
    with pytest.raises(ValueError, match="gold answers are those of BRUMO 2025, not of HMMT Feb"):
        load("hmmt25", _rows("brumo25"))
    with pytest.raises(ValueError, match="year is 2024; AIME 2025 is of 2025"):
        load("aime25", [row | {"year": 2024} for row in _rows("aime25")])
    assert load("aime25", [row | {"year": "2025"} for row in _rows("aime25")]).golds == "known"
    assert load("aime26", _verl_rows("aime26", "MathArena/aime_2026")).golds == "not compared"
    assert load("hmmt25nov", [row | {"source": "hmmt_nov_2025"} for row in _rows("hmmt25nov")])
    with pytest.raises(ValueError, match="which is HMMT November 2025"):
        load("hmmt25", [row | {"source": "hmmt_nov_2025"} for row in _rows("hmmt25")])


def test_a_single_wrong_gold_is_noticed(tmp_path, caplog):
    rows = _rows("aime25")
    rows[7]["answer"] += "0"
    with pytest.raises(ValueError, match="not those of AIME 2025; pass a file of your own"):
        load_benchmark(f"aime25={_file(tmp_path, rows)}")
    rows = _rows("brumo25")
    rows[7]["answer"] += "0"  # which another way to write it might be, too
    assert load_benchmark(f"brumo25={_file(tmp_path, rows)}").golds == "other"
    assert "not those of BRUMO 2025" in caplog.text


def test_a_digest_does_not_depend_on_order_padding_or_spacing():
    first = digest(["073", "5", r"\frac{1}{2}", "27.0"])
    assert first == digest([r"\dfrac{ 1}{2}", "27", "73", "$5$"])
    assert first != digest(["073", "5", r"\frac{1}{3}", "27.0"])
    assert re.fullmatch("[0-9a-f]{16}", first)


def test_a_revision_that_may_move_is_told_and_the_commit_behind_it_recorded(caplog):
    benchmark, commit = BENCHMARKS["aime25"], "0123456789abcdef" * 2 + "01234567"
    assert _resolved(benchmark, commit, None) == commit
    assert not caplog.records
    files: dict[str, dict] = {f"hf://datasets/MathArena/aime_2025@{commit}/data/train.parquet": {}}
    assert _resolved(benchmark, "main", files) == commit
    assert f"main may move; the commit {commit} was loaded" in caplog.text
    assert _resolved(benchmark, "main", None) is None
    assert "cannot be repeated" in caplog.text


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
    assert f"--revision {benchmark.revision} --local-dir {name}" in message
    assert ("terms" in message) == benchmark.gated


def test_pins_are_commits():
    for benchmark in BENCHMARKS.values():
        assert re.fullmatch("[0-9a-f]{40}", benchmark.revision)
