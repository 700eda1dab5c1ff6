"""Which other values a unit can stand for."""

from fractions import Fraction

import pytest

from ctpo.grading.reading.answer import take_apart
from ctpo.grading.reading.units import canonical_unit, conversions


@pytest.mark.parametrize(
    ("box", "gold", "factor"),
    [
        ("cent", "", "100"),  # 50 cents are 0.50 dollars: 100 times the gold
        ("", "cent", "1/100"),
        ("h", "", "1/60"),
        ("cm^2", "", "10000"),
        ("ft^2", "", "1/144"),
        ("km/h", "", "18/5"),
        ("m/s", "", "5/18"),
        ("million", "", "1/1000000"),
    ],
)
def test_a_factor_leads_from_the_gold_to_what_is_in_the_box(box, gold, factor):
    assert factor in conversions(box, gold)


def test_without_one_unit_or_with_an_unknown_one_there_is_no_factor():
    for pair in (("", ""), ("cm", "cm"), ("cm", "mm"), ("apple", ""), ("", "apple/h^x")):
        assert conversions(*pair) == ()


def test_one_is_no_factor_and_back_is_the_reciprocal():
    for unit in ("cent", "km", "min", "km/h", "lb"):
        there, back = (
            [Fraction(f) for f in conversions(*pair)] for pair in ((unit, ""), ("", unit))
        )
        assert 1 not in there
        assert sorted(there) == sorted(1 / factor for factor in back)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        (r"5\text{ inches}", "in"),
        ("5 hours", "h"),
        (r"5\,\mathrm{~km/s}", "km/s"),
        (r"5\text{ s}", "s"),
        (r"5\text{ cm}^{2}", "cm^2"),
        (r"\$5.20", "dollar"),
        (r"$\$5$", "dollar"),
        ("$5$", ""),
        (r"5\text{ deg}", "degree"),
        (r"(1^\circ, 2^\circ)", "degree"),
        (r"\tan 2^\circ", ""),
    ],
)
def test_units_are_read_from_an_answer(text, unit):
    assert take_apart(text).readings()[0][0].unit == unit


@pytest.mark.parametrize(
    ("texts", "unit"),
    [
        (("cm^2", "sq. cm", "square centimeters", "square centimetres"), "cm^2"),
        (("km/h", "kilometers per hour", "kph"), "km/h"),
        (("m s^{-1}", "m/s", "meters per second"), "m/s"),
        (("dollars", "USD"), "dollar"),
        (("MW",), "MW"),
        (("mW",), "mW"),
    ],
)
def test_a_unit_has_one_spelling(texts, unit):
    assert {canonical_unit(text) for text in texts} == {unit}
