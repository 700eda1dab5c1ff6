"""Reading numbers exactly."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctpo.grading import grade
from ctpo.grading.exact import value as exact
from ctpo.grading.reading.answer import take_apart
from ctpo.grading.reading.tree import Undecided


def number(text):
    """The rational number that a text is read as, or None."""
    try:
        readings, _ = take_apart(text).readings()
    except Undecided:
        return None
    return None if readings[0].unit else exact(readings[0].tree)


INTEGERS = st.integers(-(10**30), 10**30)


@given(value=INTEGERS, zeros=st.integers(0, 3))
def test_leading_zeros_and_separators_change_nothing(value, zeros):
    sign, digits = ("-", str(-value)) if value < 0 else ("", str(value))
    assert number(sign + "0" * zeros + digits) == value
    assert number(f"{value:,}") == value
    assert number(f"{value:,}".replace(",", " ")) == value


@given(above=INTEGERS, below=st.integers(1, 10**20))
def test_every_way_to_write_a_fraction_is_the_same_fraction(above, below):
    exact = Fraction(above, below)
    for text in (
        f"{above}/{below}",
        f"{above} / {below}",
        rf"\frac{{{above}}}{{{below}}}",
        rf"\frac {{ {above} }} {{ {below} }}",
        rf"-\frac{{{-above}}}{{{below}}}",
        rf"\frac{{{-above}}}{{{-below}}}",
    ):
        assert number(text) == exact


@given(whole=st.integers(0, 10**12), decimals=st.integers(0, 10**12))
def test_a_decimal_is_read_digit_by_digit(whole, decimals):
    text = f"{whole}.{decimals:013d}"
    assert number(text) == whole + Fraction(decimals, 10**13)
    assert number("-" + text) == -(whole + Fraction(decimals, 10**13))


@given(left=INTEGERS, right=INTEGERS)
def test_integers_are_right_exactly_when_equal(left, right):
    for a, b in ((left, right), (left, left), (left, left + 1)):
        assert grade(rf"\boxed{{{a}}}", str(b)).outcome == ("right" if a == b else "wrong")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"\frac12", Fraction(1, 2)),
        (r"-\frac12", Fraction(-1, 2)),
        (r"3\frac{1}{2}", Fraction(7, 2)),
        (r"-3\frac{1}{2}", Fraction(-7, 2)),
        ("3 1/2", Fraction(7, 2)),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("1,234.50", Fraction(2469, 2)),
        (r"1.5 \times 10^{3}", 1500),
        (r"1.5 \cdot 10^-3", Fraction(3, 2000)),
        ("2e3", 2000),
        ("2E-3", Fraction(1, 500)),
    ],
)
def test_by_hand(text, value):
    assert number(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "x", "1 2", "12 34", "1/0", r"\frac{1}{0}", r"\frac{x}{2}", "1_000", "٣3x", "1e",
     "1.2.3", "--1", r"3\frac{-1}{2}", r"3\frac{5}{2}", r"\frac123", "inf", "nan", "1e1001",
     "9" * 4001, "1,00", "1,0000", "2^{99999}", "900!"],
)  # fmt: skip
def test_anything_else_is_no_number(text):
    assert number(text) is None
