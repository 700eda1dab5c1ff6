"""Problems from files, directories and the Hub."""

import json
import math

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctpo.tasks import read_problems


def _verl(index, answer="7", **changes):
    """A row as verl's data preparation writes it."""
    return {
        "data_source": "made/up",
        "prompt": [
            {"role": "system", "content": "Answer in a box."},
            {"role": "user", "content": f"What is {index} of it?"},
        ],
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": answer},
        "extra_info": {"split": "test", "index": index},
        **changes,
    }


def _write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(params=["made.parquet", "made.jsonl"])
def path(request, tmp_path):
    return tmp_path / request.param


def test_verl_rows_are_read_field_by_field(path):
    problems = read_problems(_write(path, [_verl(0, "025"), _verl(1, r"\frac{1}{2}")]))
    first, second = problems
    assert first.id == "made/up-0"
    assert first.messages == (
        {"role": "system", "content": "Answer in a box."},
        {"role": "user", "content": "What is 0 of it?"},
    )
    assert (first.answer, first.source, first.split) == ("025", "made/up", "test")
    assert (first.level, first.operands) == (0, ())
    assert second.answer == r"\frac{1}{2}"


def test_the_id_of_the_row_goes_before_its_index(path):
    assert read_problems(_write(path, [_verl(0, id="a7")]))[0].id == "a7"


@pytest.mark.parametrize("field", ["problem", "question", "prompt"])
def test_plain_rows_are_read(path, field):
    rows = [{field: "Two and two?", "answer": "4"}, {field: "Two and three?", "answer": "5"}]
    first, second = read_problems(_write(path, rows))
    assert first.messages == ({"role": "user", "content": "Two and two?"},)
    assert (first.answer, first.source, first.id) == ("4", "made", "made-1")
    assert second.id == "made-2"


def test_a_number_is_an_answer_too(path):
    rows = [{"problem": "How many?", "answer": 12}]
    assert read_problems(_write(path, rows))[0].answer == "12"


def test_blank_lines_are_no_rows(tmp_path):
    path = tmp_path / "made.jsonl"
    path.write_text('\n{"problem": "p", "answer": "1"}\n\n')
    assert [p.id for p in read_problems(path)] == ["made-2"]


def test_limit_takes_the_first_ones(path):
    _write(path, [_verl(i) for i in range(5)])
    assert [p.id for p in read_problems(path, limit=2)] == ["made/up-0", "made/up-1"]
    assert len(read_problems(path, limit=9)) == 5
    with pytest.raises(ValueError, match="limit is 0"):
        read_problems(path, limit=0)


def test_rows_past_the_limit_are_not_judged(path):
    _write(path, [_verl(0), _verl(1, "")])
    assert len(read_problems(path, limit=1)) == 1


def test_split_leaves_out_rows_of_another_and_counts_toward_the_limit(path):
    stated = ["train", "test", "train", "validation", None]
    _write(path, [_verl(i, extra_info={"index": i, "split": s}) for i, s in enumerate(stated)])
    assert [p.split for p in read_problems(path)] == ["train", "test", "train", "held-out", "test"]
    train = read_problems(path, split="train")
    assert [(p.id[-1], p.split) for p in train] == [("0", "train"), ("2", "train"), ("4", "train")]
    assert [p.id[-1] for p in read_problems(path, split="train", limit=2)] == ["0", "2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"reward_model": {"style": "rule"}},
            r"row 2: reward_model.ground_truth is missing or null; it must",
        ),
        ({"reward_model": "rule"}, r"row 2: reward_model is 'rule'; it must be a mapping"),
        ({"reward_model": {"ground_truth": " "}}, r"row 2: reward_model.ground_truth is ' '"),
        ({"reward_model": None}, r"row 2: none of the fields answer, .* has an answer; the"),
        ({"reward_model": {"ground_truth": True}}, r"row 2: reward_model.ground_truth is True"),
        (
            {"reward_model": {"ground_truth": math.nan}},
            r"row 2: reward_model.ground_truth is nan; it must be text or a finite number",
        ),
        (
            {"reward_model": None, "final_answer": [1, math.inf]},
            r"row 2: final_answer is \[1, inf\]; it must",
        ),
        (
            {"reward_model": None, "answers": ["1", math.nan]},
            r"row 2: answers\[1\] is nan; it must",
        ),
        ({"prompt": []}, r"row 2: prompt is \[\]; it must be a string or a non-empty list"),
        ({"prompt": ["hi"]}, r"row 2: prompt\[0\] is 'hi'; it must be a message"),
        ({"prompt": [{"role": "human", "content": "hi"}]}, r"prompt\[0\].role is 'human'"),
        (
            {"prompt": [{"role": "user", "content": None}]},
            r"prompt\[0\].content is missing or null",
        ),
        ({"prompt": [{"role": "assistant", "content": "4"}]}, r"prompt\[-1\].role is 'assistant'"),
        (
            {"prompt": None},
            r"none of the fields prompt, problem, question is there; the fields are",
        ),
        ({"extra_info": "x"}, r"row 2: extra_info is 'x'; it must be a mapping"),
        (
            {"extra_info": {"split": "trian", "index": 1}},
            r"extra_info.split is 'trian'; it must be",
        ),
        ({"data_source": 3}, r"row 2: data_source is 3; it must be a non-empty string"),
        ({"id": 1.5}, r"row 2: id is 1.5; it must be"),
    ],
)
def test_an_error_names_file_row_field_and_what_would_be_right(tmp_path, change, message):
    path = _write(tmp_path / "made.jsonl", [_verl(0), _verl(1, **change)])
    with pytest.raises(ValueError, match=message) as caught:
        read_problems(path)
    assert str(path) in str(caught.value)


def test_an_identifier_that_occurs_twice_is_refused(path):
    _write(path, [_verl(0), _verl(1), _verl(0)])
    with pytest.raises(ValueError, match="row 3: id is 'made/up-0', which row 1 has already"):
        read_problems(path)


def test_a_file_that_is_not_what_its_name_says_is_refused_by_name(tmp_path):
    for name, message in (("a.parquet", "not a readable Parquet"), ("a.jsonl", "row 1: not JSON")):
        (tmp_path / name).write_text("hello, I am no such file\n")
        with pytest.raises(ValueError, match=message) as caught:
            read_problems(tmp_path / name)
        assert name in str(caught.value)
    (tmp_path / "b.jsonl").write_text("[1, 2]\n")
    with pytest.raises(ValueError, match=r"row 1: is \[1, 2\]; it must be a JSON object"):
        read_problems(tmp_path / "b.jsonl")
    (tmp_path / "a.txt").write_text("a,b\n")
    with pytest.raises(ValueError, match="must end in one of .parquet, .jsonl"):
        read_problems(tmp_path / "a.txt")


def test_nothing_there_is_an_error_and_not_an_empty_list(tmp_path):
    for name in ("none.parquet", "none.jsonl", "none"):
        with pytest.raises(FileNotFoundError, match="no such file"):
            read_problems(tmp_path / name)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(ValueError, match="no problems"):
        read_problems(empty)
    with pytest.raises(ValueError, match="no problems of split 'train'"):
        read_problems(_write(tmp_path / "made.jsonl", [_verl(0)]), split="train")
    with pytest.raises(ValueError, match="split is 'trian'"):
        read_problems(tmp_path / "made.jsonl", split="trian")


@pytest.fixture
def data_set(tmp_path, monkeypatch):
    """A data set as `datasets` reads it from the Hub, in a directory."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    folder = tmp_path / "own"
    folder.mkdir()
    rows = [_verl(i, extra_info={"split": None, "index": i}) for i in range(3)]
    for row in rows:
        del row["extra_info"]["split"]
    _write(folder / "train-00000.parquet", rows)
    return folder, rows


def test_a_data_set_of_one_split_needs_no_name(data_set):
    folder, _ = data_set
    problems = read_problems(folder)
    assert [p.id for p in problems] == ["made/up-0", "made/up-1", "made/up-2"]
    assert {p.split for p in problems} == {"train"}
    assert len(read_problems(str(folder), limit=2)) == 2


def test_a_data_set_of_several_splits_needs_a_name(data_set):
    folder, rows = data_set
    _write(folder / "test-00000.parquet", rows[:1])
    with pytest.raises(ValueError, match="splits train, test; name one"):
        read_problems(folder)
    with pytest.raises(ValueError, match="has no split 'dev'; it has train, test"):
        read_problems(folder, split="dev")
    assert [(p.id, p.split) for p in read_problems(folder, split="test")] == [("made/up-0", "test")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt,answer\nHow many?\n", "row 1: has another number of fields than the first line"),
        ("prompt,answer\nHow many?,1\na,b,c\n", "row 2: has another number of fields"),
        ('prompt,answer\n"How many?,1\n', "row 1: not CSV"),
        ("prompt,answer\n", "no problems"),
        ("question,gold\nHow many?,1\n", "row 1: none of the fields answer, .* has an answer"),
    ],
)
def test_a_csv_file_that_cannot_be_read_says_where(tmp_path, text, message):
    path = tmp_path / "some.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_problems(path)


def test_a_csv_file_is_read_with_what_spreadsheets_write(tmp_path):
    path = tmp_path / "some.csv"
    path.write_bytes('\ufeffprompt,answer\r\n"How many, π?",3\r\n'.encode())
    (found,) = read_problems(path)
    assert (found.messages[0]["content"], found.answer) == ("How many, π?", "3")
