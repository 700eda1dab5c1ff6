"""Finding the box."""

import pytest

from ctpo.grading import last_box
from ctpo.grading.box import UnclosedBoxError


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{42}", "42"),
        (r"so \boxed{ 42 }.", "42"),
        (r"\boxed{1} no, \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed {5}", "5"),
        ("\\boxed\n{5}", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{x : x > 0\right\}} {", r"\left\{x : x > 0\right\}"),
        (r"\boxed{a\}b}", r"a\}b"),
        (r"\boxed{a\\}b}", r"a\\"),
        (r"\boxed{}", ""),
        (r"\boxed{7} and that is my \boxed", "7"),
        (r"\boxed{7} is what \boxed 8 is", "7"),
        ("\\boxed{1\n2}", "1\n2"),
    ],
)
def test_the_last_box_is_taken_with_its_braces_balanced(text, content):
    assert last_box(text) == content


@pytest.mark.parametrize("text", ["", "42", r"boxed{42}", r"\box{42}", r"\boxed", r"\boxed 4"])
def test_no_box_is_none(text):
    assert last_box(text) is None


@pytest.mark.parametrize(
    "text",
    [r"\boxed{42", r"\boxed{\frac{1}{2}", r"\boxed{42\}", r"\boxed{1} or \boxed{2", "\\boxed{\\"],
)
def test_an_unclosed_box_is_no_answer_and_no_earlier_one_takes_its_place(text):
    with pytest.raises(UnclosedBoxError):
        last_box(text)
