"""Files in the shapes in which data sets are published; every row here is made up."""

import json
from typing import Any

import pytest

from ctpo.tasks import read_problems

# Shape, rows, and the golds that must come out.
SHAPES: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "gsm8k": (
        [
            {"question": "Mia has 3 bags of 4.", "answer": "3 * 4 = <<3*4=12>>12.\n#### 12"},
            {"question": "And a lot.", "answer": "We add.\n####  1,250 "},
        ],
        ["12", "1250"],
    ),
    "math500": (
        [
            {
                "problem": r"Halve $\frac{1}{2}$.",
                "solution": r"It is $\boxed{\frac{1}{4}}$.",
                "answer": r"\frac{1}{4}",
                "subject": "Prealgebra",
                "level": 1,
                "unique_id": "test/prealgebra/1.json",
            }
        ],
        [r"\frac{1}{4}"],
    ),
    "several-that-are-right": (
        [{"question": "Half of 1?", "answers": ["1/2", 0.5, "$50$"]}],
        ["1/2", "0.5", "50"],
    ),
    "minerva": (
        [
            {"question": "How hot?", "answer": "$3.2 \\times 10^4$", "idx": 0},
            {"problem": "How far?", "solution": r"So \boxed{4.5e33} it is.", "type": "physics"},
        ],
        ["3.2 \\times 10^4", "4.5e33"],
    ),
    "olympiadbench": (
        [
            {
                "id": 1606,
                "question": "Find all of them.",
                "final_answer": ["$1$", "$-2$"],
                "is_multiple_answer": True,
                "unit": None,
            },
            {"id": 1607, "question": "Find it.", "final_answer": ["$(8,10)$, $(1,2)$"]},
        ],
        ["1, -2", "$(8,10)$, $(1,2)$"],
    ),
    "matharena": (
        [{"problem_idx": 1, "problem": "Count.", "answer": 70, "problem_type": ["Number Theory"]}],
        ["70"],
    ),
    "deepscaler": (
        [{"problem": "Add.", "answer": "-\\frac{2}{3}", "solution": r"No box \boxed{9}"}],
        ["-\\frac{2}{3}"],
    ),
    "dapo": (
        [
            {
                "data_source": "math_dapo",
                "prompt": [{"role": "user", "content": f"Solve {number}."}],
                "ability": "MATH",
                "reward_model": {"ground_truth": gold, "style": "rule"},
                "extra_info": {"index": f"9a9b-{number}"},
            }
            for number, gold in enumerate(["34", '["35"]', "[36]", "['37']", "[1,2)"])
        ],
        ["34", "35", "36", "37", "[1,2)"],
    ),
    "aops": (
        [{"problem": "How many?", "solution": r"First \boxed{1}, then \boxed{\{1,2\}}. - by me"}],
        [r"\{1,2\}"],
    ),
}


def file(tmp_path, rows, start=b"", encoding="utf-8"):
    path = tmp_path / "some.jsonl"
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(start + text.encode(encoding))
    return path


@pytest.mark.parametrize("shape", SHAPES)
def test_golds_are_taken_out_of_every_shape(shape, tmp_path):
    rows, golds = SHAPES[shape]
    problems = read_problems(file(tmp_path, rows))
    assert [gold for problem in problems for gold in problem.golds] == golds
    assert len({problem.id for problem in problems}) == len(rows)
    assert all(problem.messages[-1]["content"] for problem in problems)


def test_a_part_of_a_problem_has_what_its_parts_share_before_it(tmp_path):
    rows = [{"context": "A ball falls.", "question": "How long?", "final_answer": ["2"]}]
    (problem,) = read_problems(file(tmp_path, rows))
    assert problem.messages[-1]["content"] == "A ball falls.\n\nHow long?"


def test_repeated_rows_are_left_out_where_that_is_asked_for_and_counted(tmp_path, caplog):
    rows = SHAPES["dapo"][0][:2]
    other = {**rows[0], "reward_model": {"ground_truth": "99"}, "extra_info": {"index": "new"}}
    path = file(tmp_path, [*rows, *rows, other, *rows])
    with pytest.raises(ValueError, match="row 3: id is .* it repeats an earlier row: .*--unique"):
        read_problems(path)
    problems = read_problems(path, unique=True)
    # The same question with another answer is no repetition.
    assert [problem.answer for problem in problems] == ["34", "35", "99"]
    assert "4 rows repeat an earlier question and answer and are left out; 3 stay" in (
        caplog.text.replace("3 problems", "3")
    )


@pytest.mark.parametrize("around", ["{}", '{{"version": "1", "data": {}}}', " \n{}\n"])
def test_a_json_file_holds_what_a_jsonl_file_holds(tmp_path, around):
    rows = SHAPES["minerva"][0]
    (tmp_path / "some.json").write_text(around.format(json.dumps(rows, indent=2)))
    found = [(p.messages, p.answer) for p in read_problems(tmp_path / "some.json")]
    assert found == [(p.messages, p.answer) for p in read_problems(file(tmp_path, rows))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n{"a": 2}', "one object a line is named .jsonl"),
        ('{"question": "?", "answer": "1"}', "must be a list of JSON objects"),
        ("[1, 2]", "must be a list of JSON objects"),
        ("[", "some.json: not JSON"),
    ],
)
def test_a_json_file_that_holds_no_rows_says_what_it_should(tmp_path, text, message):
    (tmp_path / "some.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_problems(tmp_path / "some.json")


def test_a_byte_order_mark_is_no_part_of_a_row(tmp_path):
    rows = [{"question": "é?", "answer": "1"}]
    (problem,) = read_problems(file(tmp_path, rows, b"\xef\xbb\xbf"))
    assert problem.messages[-1]["content"] == "é?"


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_file_that_is_not_utf8_is_named_with_its_row(tmp_path, suffix):
    path = file(tmp_path, [{"question": "e?", "answer": "1"}, {"question": "é?", "answer": "1"}],
                encoding="latin-1")  # fmt: skip
    if suffix == "csv":
        path = tmp_path / "some.csv"
        path.write_bytes("question,answer\né?,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"row 2: not UTF-8: byte 0xe9 .* latin-1") as error:
        read_problems(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"Problem": "p", "answer": "1"}, "if 'Problem' is the question, rename it to 'question'"),
        ({"query": "p", "answer": "1"}, "the fields are query, answer; if 'query' is the question"),
        ({"xyz": "p", "answer": "1"}, r"the fields are xyz, answer$"),
        ({"question": "p", "gold": "1"}, "the fields are question, gold; if 'gold' is the answer"),
        ({"question": "p", "Answer": "1"}, "if 'Answer' is the answer, rename it to 'answer'"),
        ({"question": "p", "expected_answers": "1"}, "if 'expected_answers' is the answer"),
        ({"question": "p", "answer": []}, r"answer is \[\]; it must be a non-empty string"),
        ({"question": "p", "answer": [{"a": 1}]}, "it must be a non-empty string"),
        ({"question": "p", "answers": "1"}, "answers is '1'; it must be a list"),
        ({"question": "p", "answers": ["1", ""]}, r"answers\[1\] is ''; it must be a non-empty"),
        ({"question": "p", "answers": ["1"], "answer": "1"}, "has answers and answer; give one"),
    ],
)
def test_unknown_columns_are_told_with_the_nearest(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        read_problems(file(tmp_path, [row]))
