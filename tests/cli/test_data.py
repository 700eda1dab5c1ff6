"""`ctpo data`, as a user types it."""

import json

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ctpo.cli.app import app
from ctpo.tasks import generate, read_problems
from ctpo.tir.protocols import PROTOCOLS


def data(*arguments, expect=0):
    shown = CliRunner().invoke(app, ["data", *map(str, arguments)])
    assert shown.exit_code == expect, shown.output
    return shown


def messages(file):
    return [problem.messages for problem in read_problems(file)]


@pytest.fixture
def jsonl(tmp_path):
    file = tmp_path / "mine.jsonl"
    rows = [
        {"problem": "Find 1 + 1.", "answer": "2", "source": "a"},
        {"prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "Find 2."}]}
        | {"answer": 2, "source": "b", "id": "second"},
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


@pytest.mark.parametrize("name", PROTOCOLS)
def test_problems_get_the_protocols_instructions_unless_they_have_a_system_message(
    name, jsonl, tmp_path
):
    data(jsonl, "--output", tmp_path / "x.parquet", "--protocol", name)
    first, second = messages(tmp_path / "x.parquet")
    assert first[0] == {"role": "system", "content": PROTOCOLS[name].instructions}
    assert first[1] == {"role": "user", "content": "Find 1 + 1."}
    assert second[0] == {"role": "system", "content": "S"}


def test_instructions_can_be_left_out_or_be_ones_own(jsonl, tmp_path):
    data(jsonl, "--output", tmp_path / "x.parquet", "--protocol", "none")
    assert [m["role"] for m in messages(tmp_path / "x.parquet")[0]] == ["user"]
    data(jsonl, "--output", tmp_path / "x.parquet", "--instructions", "Think.")
    assert messages(tmp_path / "x.parquet")[0][0] == {"role": "system", "content": "Think."}


def test_what_was_written_is_said(jsonl, tmp_path):
    shown = data(jsonl, "--output", tmp_path / "x.parquet")
    assert "2: 1 of a, 1 of b" in shown.stdout
    assert str(tmp_path / "x.parquet") in shown.stdout.replace("\n", "")


def test_built_in_problems_are_those_of_the_seed_and_the_split(tmp_path):
    out = tmp_path / "x.parquet"
    for options, expected in (
        (["--seed", 3], generate(20, seed=3)),
        (["--split", "held-out"], generate(20, seed=0, split="held-out")),
        (["--hard-fraction", 0.5], generate(20, seed=0, hard_fraction=0.5)),
    ):
        data("builtin", "--problems", 20, "--output", out, *options)
        assert [p.id for p in read_problems(out)] == [p.id for p in expected]


def test_benchmarks_are_written_together_and_checked(tmp_path):
    def benchmark(name, count):
        file = tmp_path / f"{name}.jsonl"
        rows = [{"problem": f"{name} {n}", "answer": n, "problem_idx": n} for n in range(count)]
        file.write_text("\n".join(map(json.dumps, rows)))
        return f"{name}={file}"

    out = tmp_path / "x.parquet"
    shown = data(f"{benchmark('aime26', 30)},{benchmark('hmmt25', 30)}", "--output", out)
    assert "60: 30 of aime26, 30 of hmmt25" in shown.stdout
    rows = pq.read_table(out).to_pylist()
    assert {row["data_source"] for row in rows} == {"aime26", "hmmt25"}
    assert len({row["extra_info"]["id"] for row in rows}) == 60
    shown = data(benchmark("aime26", 29), "--output", tmp_path / "y.parquet", expect=1)
    assert "29 problems; AIME 2026 has 30" in shown.stderr
    assert not (tmp_path / "y.parquet").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.parquet"], "nowhere.parquet: no such file"),
        (["builtin", "--split", "test"], "it must be train or held-out"),
        (["aime25", "--split", "train"], "a benchmark has only one"),
        (["x.jsonl", "--hard-fraction", "0.5"], "has an effect on builtin only"),
        (["x.jsonl", "--seed", "3"], "seed is 3; it has an effect on builtin only"),
        (["builtin", "--split", "held-out", "--seed", "3"], "do not depend on it"),
    ],
)
def test_mistakes_get_one_sentence(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in data(*arguments, "--output", "out.parquet", expect=1).stderr
    assert not list(tmp_path.iterdir())


def test_a_broken_row_is_named(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"problem": "a", "answer": "1"}\n{"problem": "b"}\n')
    shown = data(tmp_path / "x.jsonl", "--output", tmp_path / "out.parquet", expect=1)
    assert "row 2: none of the fields answer, final_answer" in " ".join(shown.stderr.split())


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x", ".", ""])
def test_what_is_written_is_parquet_by_name_too(name, jsonl, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    shown = data(jsonl, "--output", name, expect=1)
    assert "give it a name that ends in .parquet" in shown.stderr
    assert set(tmp_path.iterdir()) == before


def test_a_directory_in_the_files_place_is_named(jsonl, tmp_path):
    (tmp_path / "x.parquet").mkdir()
    shown = data(jsonl, "--output", tmp_path / "x.parquet", expect=1)
    assert f"{tmp_path / 'x.parquet'}: " in shown.stderr
