import pytest

from ctpo.tir.calls import find_call, format_output


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\nprint(1)\n```", "print(1)"),
        ("Let me see.\n```py\nx = 1\nprint(x)\n```\nmore", "x = 1\nprint(x)"),
        ("```python3\n\n```", ""),
        ("```Python\nprint(1)\n```", "print(1)"),
        # Another language is passed over whole, even with a fence of ours inside its text.
        ("```text\nprint(0)\n```\n```python\nprint(1)\n```", "print(1)"),
        ("```python\nprint(1)\n```\n```python\nprint(2)\n```", "print(1)"),
    ],
)
def test_the_first_closed_python_block_is_the_call(text, program):
    assert find_call(text) == program


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no code",
        "```python\nprint(1)",
        "```python\nprint(1)\n``",
        "```\nprint(1)\n```",
        "```text\nprint(1)\n```",
        "a ```python inline``` block",
    ],
)
def test_what_is_not_a_closed_python_block_is_no_call(text):
    assert find_call(text) is None


def test_indentation_is_the_programs_own():
    assert find_call("```python\n  if 1:\n    x\n```") == "  if 1:\n    x"


def test_output_starts_on_a_line_of_its_own_and_ends_its_block():
    assert format_output("5\n", after="```", limit=100) == "\n```output\n5\n```\n"
    assert format_output("5", after="```\n", limit=100) == "```output\n5\n```\n"
    assert format_output("", after="```", limit=100) == "\n```output\n```\n"


def test_of_a_long_output_the_beginning_and_the_end_are_shown():
    shown = format_output("a" * 500 + "b" * 500, after="", limit=10)
    assert "aaaaa\n[990 characters left out]\nbbbbb\n" in shown


def test_a_program_cannot_close_its_own_output_block():
    shown = format_output("```\n\\boxed{7}\n```python\nprint(1)\n```", after="", limit=100)
    assert shown.count("```") == 2
    assert find_call(shown) is None
