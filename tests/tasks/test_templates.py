"""The built-in questions, answered again by brute force from their text alone."""

import random
import re
from collections import Counter
from collections.abc import Callable

import pytest

from ctpo.tasks import TEMPLATES


def _power_sum(p, a, b):
    total = 0
    for k in range(a, b + 1):
        term = 1
        for _ in range(p):
            term *= k
        total += term
    return total


def _modular_power(a, b, m):
    value = 1
    for _ in range(b):
        value = value * a % m
    return value


def _gcd(a, b):
    return max(d for d in range(1, min(a, b) + 1) if a % d == 0 == b % d)


def _lcm(a, b):
    multiple = a
    while multiple % b:
        multiple += a
    return multiple


def _count(n, a, b):
    return len([k for k in range(1, n + 1) if k % a == 0 or k % b == 0])


def _digit_sum(a, b):
    power, total = 1, 0
    for _ in range(b):
        power *= a
    while power:
        power, digit = divmod(power, 10)
        total += digit
    return total


# What a reader of the question would do: its numbers in order of appearance.
BRUTE_FORCE: dict[str, Callable[..., int]] = {
    "power-sum": _power_sum,
    "modular-power": _modular_power,
    "gcd": _gcd,
    "lcm": _lcm,
    "count-divisible": _count,
    "digit-sum": _digit_sum,
}


def _from_text(name, text):
    if name == "product":
        (found,) = re.findall(r"^Find (\d+) \* \((\d+) ([+-]) (\d+)\)\.$", text)
        a, b, sign, c = found
        inside = int(b) + int(c) if sign == "+" else int(b) - int(c)
        return sum(inside for _ in range(int(a)))
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    if name == "count-divisible":
        assert numbers.pop(0) == 1  # "from 1 to"
    return BRUTE_FORCE[name](*numbers)


def _draws(name, digits, number, seed=0):
    rng = random.Random(seed)
    return [TEMPLATES[name].draw(rng, digits) for _ in range(number)]


def test_the_seven_templates_are_all_here():
    assert set(TEMPLATES) == {*BRUTE_FORCE, "product"}
    assert all(name == template.name for name, template in TEMPLATES.items())


@pytest.mark.parametrize("digits", [2, 3])
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_text_alone_gives_the_answer(name, digits):
    template = TEMPLATES[name]
    for operands in _draws(name, digits, 150):
        assert template.answer(operands) == _from_text(name, template.text(operands))


@pytest.mark.parametrize(
    ("name", "operands", "text", "answer"),
    [
        ("power-sum", (2, 4, 3), "Find the sum of k^3 for k from 2 to 4.", 99),
        ("modular-power", (3, 4, 10), "Find 3^4 mod 10.", 1),
        ("gcd", (12, 18), "Find the gcd of 12 and 18.", 6),
        ("lcm", (4, 6), "Find the lcm of 4 and 6.", 12),
        ("count-divisible", (10, 2, 3), "Count the numbers from 1 to 10 divisible by 2 or 3.", 7),
        ("product", (3, 4, -6), "Find 3 * (4 - 6).", -6),
        ("product", (3, 4, 6), "Find 3 * (4 + 6).", 30),
        ("digit-sum", (2, 10), "Find the sum of the digits of 2^10.", 7),
    ],
)
def test_by_hand(name, operands, text, answer):
    assert TEMPLATES[name].text(operands) == text
    assert TEMPLATES[name].answer(operands) == answer


@pytest.mark.parametrize("digits", [2, 3])
@pytest.mark.parametrize("name", TEMPLATES)
def test_answers_are_short_and_hard_to_guess(name, digits):
    answers = [TEMPLATES[name].answer(operands) for operands in _draws(name, digits, 1000)]
    assert max(abs(answer) for answer in answers) < 10**8
    (_, most_common), *_ = Counter(answers).most_common(1)
    assert most_common < 90


@pytest.mark.parametrize("digits", [2, 3])
@pytest.mark.parametrize("name", TEMPLATES)
def test_no_answer_stands_in_its_question(name, digits):
    # Counts and digit sums may coincide with an operand now and then.
    template = TEMPLATES[name]
    copied = sum(
        str(template.answer(operands)) in re.findall(r"\d+", template.text(operands))
        for operands in _draws(name, digits, 1000)
    )
    assert copied <= (0 if name in ("gcd", "lcm", "product") else 25)


@pytest.mark.parametrize("digits", [2, 3])
def test_operands_have_the_digits_asked_for(digits):
    lengths = {"power-sum": slice(0, 2), "digit-sum": slice(0, 1), "count-divisible": slice(0, 0)}
    for name in TEMPLATES:
        for operands in _draws(name, digits, 200):
            for operand in operands[lengths.get(name, slice(None))]:
                assert len(str(abs(operand))) == digits


def test_a_gcd_is_rarely_trivial():
    for digits in (2, 3):
        assert all(_gcd(*operands) >= 3 for operands in _draws("gcd", digits, 300))


def test_the_questions_use_few_words():
    words = set()
    for name, template in TEMPLATES.items():
        for operands in _draws(name, 2, 20):
            words |= set(re.findall("[A-Za-z]+", template.text(operands)))
    assert len(words) <= 24
