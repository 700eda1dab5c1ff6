"""What is right, what is wrong and what cannot be told."""

import contextlib
import math
import subprocess
import sys
import time
from fractions import Fraction

import pytest

from ctpo.grading import canonical, grade

# (box, answer). Written by hand; the comments say what is at stake.
RIGHT = [
    (r"4\sqrt(2)", r"4\sqrt{2}"), (r"\emptyset", r"\varnothing"), ("x<2", r"(-\infty,2)"),
    ("1<x<2", "(1,2)"), (r"1\le x<2", "[1,2)"), (r"\log 100", "2"),
    ("42", "42"), ("025", "25"), ("25", "025"), ("−7", "-7"), ("+7", "7"), ("-0", "0"),
    ("1,000", "1000"), ("1{,}000", "1000"), (r"1\,000", "1000"), ("1 000", "1000"),
    ("5.0", "5"), ("5.", "5"), (".5", "0.5"), ("0.5", r"\frac{1}{2}"), ("1/2", r"\frac12"),
    (r"\dfrac{3}{6}", r"\tfrac{1}{2}"), (r"-\frac{1}{2}", r"\frac{-1}{2}"),
    (r"3\frac{1}{2}", "7/2"), (r"1.5 \times 10^{3}", "1500"), ("$17$", "17"), (r"\$17", "17"),
    (r"\(17\)", "17"), (r"\displaystyle 17", "17"),
    # Units and names
    (r"70^\circ", "70"), ("70", r"70^{\circ}"), ("70°", r"70^\circ"), (r"5\text{ cm}", "5"),
    (r"5\text{ cm}^2", "5"), ("5 cm", "5"), ("12 apples", "12"),
    (r"5\,\mathrm{cm}", r"5\text{ cm}"),
    ("x=5", "5"), ("5", "x = 5"), ("x_1 = 5", "5"), ("f(x)=x+1", "x + 1"),
    (r"5\mathrm{~cm}", r"5\text{ cm}"), (r"\$17", r"17\text{ dollars}"),
    (r"30^\circ", r"30\text{ degrees}"),
    # A sign behind the last of several numbers, or behind each
    (r"30^\circ, 60^\circ", "30,60"), (r"(30^\circ,60^\circ)", "(30,60)"),
    (r"30^\circ + 15^\circ", "45"), (r"10\%, 20\%", "0.2, 0.1"),
    (r"90^\circ - x", r"\frac{\pi}{2} - x"), (r"50\sqrt{2}\%", r"\frac{\sqrt{2}}{2}"),
    # Percent: a unit or a hundredth where one side alone has the sign
    (r"50\%", "50"), (r"50\%", "0.5"), ("0.5", r"50\%"), ("50", r"50\%"), (r"50.0\%", r"50\%"),
    # What math-verify gets wrong
    (r"\frac{\pi}{2}", "pi/2"), ("pi/2", r"\frac{\pi}{2}"), (r"1/2^{99}", r"\frac{1}{2^{99}}"),
    (r"\frac{1}{2004!}", "1/2004!"),
    # Formulas
    ("633825300114114700748351602688", "2^{99}"), ("2**99", "2^{99}"),
    (r"\sqrt{13}/2", r"\frac{\sqrt{13}}{2}"), ("sqrt(2(3+1))", r"2\sqrt2"), ("√2", r"\sqrt{2}"),
    (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}"), (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"),
    (r"10^{40}\sqrt{3+2\sqrt{2}}", r"10^{40}(1+\sqrt{2})"),
    (r"\arctan(1/2)+\arctan(1/3)", r"\frac{\pi}{4}"), (r"\log_2 8", "3"), (r"\binom{10}{3}", "120"),
    ("0.1+0.2", "0.3"), ("e^{i\\pi}", "-1"), ("(1+i)^2", "2i"), ("2 pi", r"2\pi"),
    ("x^2+2x+1", "(x+1)^2"), ("2xy", "2yx"), ("0.5x", "x/2"), (r"\sqrt{x^2}", "|x|"),
    # Several numbers
    ("3,2", "2,3"), (r"\{1, 2\}", "1,2"), ("2, 100", "100, 2"), (r"\pm 2", "2,-2"), ("{5}", "5"),
    (r"x \in \{1,2\}", "2, 1"), (r"1 \text{ or } 2", "1,2"),
    ("(1, 2)", "(1,2)"), (r"\left(\frac{1}{2},3\right)", "(0.5, 3)"),
    (r"[1,2]\cup(3,4)", r"(3,4)\cup[1,2]"),
    (r"\begin{pmatrix}1\\4/2\end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"-\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}-1\\-2\end{pmatrix}"),
    (r"\lfloor n/2 \rfloor + 1", r"1+\left\lfloor \frac{n}{2} \right\rfloor"),
    (r"5\text{ inches}^2", r"5\text{ inch}^2"),
    # Angles, repeating decimals, braces and names that take a little more
    (r"\tan 45^\circ", "1"), (r"\sin 30^{\circ}", r"\frac12"),
    (r"\cos 36^\circ", r"\frac{1+\sqrt5}{4}"), (r"{\frac{1}{2}}", "0.5"),
    (r"0.\overline{3}", r"\frac13"), (r"-1.1\overline{6}", r"-\frac{7}{6}"),
    (r"{2\sqrt{2}}", r"\sqrt{8}"), (r"\operatorname{arccos}(1/3)", r"\arccos\frac13"),
    (r"\lg 100", "2"), (r"2 \sqrt{2} \mathrm{~cm}", r"2\sqrt2"),
    # Relations
    ("x=1,y=2", "(1,2)"), ("(1,2)", "x=1,y=2"), ("x=2+3=5", "5"), ("101", "101_2"),
    ("0<x<1", "1>x>0"), (r"-2 < x \le 3", r"3 \ge x > -2"),
    ("x<5", "5>x"), ("a=1, b=2", "b=2, a=1"), ("2x+2y=4", "x+y=2"),
    # Words and other things that are no numbers
    (r"\text{Monday}", "monday"), (r"\text{(A)}", "A"), ("(B)", "B"), (r"\textbf{B}", "(B)"),
    ("101_2", "101_{2}"), (r"\infty", "∞"), ("The answer is 5", "5"),
]  # fmt: skip

WRONG = [
    ("4", r"4\sqrt(2)"), (r"1\le x<2", "(1,2)"), ("1<x<3", "(1,2)"), ("x>2", r"(-\infty,2)"),
    (r"\log 2", r"\ln 3"), (r"\emptyset", r"\{0\}"),
    (r"\tan 46^\circ", "1"), (r"0.\overline{3}", "0.3333"), ("0<x<1", "0<x<2"),
    ("0<x<1", r"0<x \le 1"), (r"\sqrt{a^3+b^2}", r"\sqrt{a^2+b^2}"), ("(-1)^n", r"\sin(n\pi)"),
    (r"\lg 10", r"\ln 10"), (r"0.1\overline{6}", r"0.\overline{16}"),
    ("42", "43"), ("7", "-7"), ("1,00", "100"), ("1.0000000000000001", "1"),
    # A decimal is what it says.
    ("0.3333", r"\frac{1}{3}"), ("1.802775637731995", r"\frac{\sqrt{13}}{2}"), ("3.14159", r"\pi"),
    ("62.83", r"20\pi"),
    # What math-verify gets wrong
    ("1/2^{99}", "1/2^{98}"), ("1/2004!", "1/2006!"), (r"2^{-99}", r"2^{-98}"), ("1/2^{99}", "0"),
    ("633825300114114700748351602689", "2^{99}"), (r"\sqrt{10^{600}+1}", "10^{300}"),
    (r"\sqrt{2}+10^{-300}", r"\sqrt{2}"), (r"10^{-40}\pi", r"10^{-40}\sqrt{2}"),
    ("10^{10^{10}}", "10^{10^{9}}"),
    ("10^{-10^{10}}", "10^{-10^{9}}"),
    # Units between which no conversion leads from one value to the other
    (r"5\text{ cents}", "0.06"), (r"0.5\text{ cents}", "50"), ("12 apples", "4"), ("5 cm", "6"),
    (r"\$18", "17"), (r"90^\circ", "30"), (r"46^\circ", r"\frac{\pi}{4}"), ("90 hours", "1.5"),
    (r"\sqrt{2}\text{ cm}", r"\sqrt{3}"),
    ("0.5", "50"), (r"5\%", "50"), (r"5\%", "500"), (r"50^\circ", r"45^\circ"),
    ("(x+1)^2+1", "(x+1)^2"), ("i", "1"), (r"-\infty", r"\infty"),
    ("2,3", "2,3,4"), ("5", "5,6"), ("5,6", "5"), ("(1,2)", "(2,1)"), ("[1,2]", "(2,1)"),
    ("(1,3)", "(1,2)"), ("[0,1)", "(0,1)"), ("(1,2,3)", "(1,3,2)"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\3\end{pmatrix}"),
    (r"-\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    (r"\lfloor n/2 \rfloor + 1", r"\lfloor n/2 \rfloor"),
    ("x<5", r"x \le 5"), ("x<5", "x>5"), ("2x+2y=5", "x+y=2"), ("x>2", "-x>-2"),
    (r"\text{Tuesday}", "Monday"), ("(B)", "A"), ("110_2", "101_2"), (r"\text{No}", "Yes"),
]  # fmt: skip

UNKNOWN = [
    (r"\sqrt{4}, 2", "2"), (r"\ln 2", r"\log 2"), (r"\log x", r"\ln x"),
    ("1 or more", "1"), (r"1\text{ or more}", "1"), ("5+", "5"),
    ("sqrt(2", "2"), (r"\frac{1}{0}", "0"), ("1 2", "12"), (r"10^\circ 30^\circ", "1030"),
    (r"0.333\ldots", r"\frac13"), (r"\approx 3", "3"),
    # The same value of something else, perhaps
    (r"5 \text{ m}", r"5\text{ cm}"), (r"50 \text{ mm}", r"5\text{ cm}"), ("x=5", "y=5"),
    (r"50\text{ cents}", "0.50"), ("0.50", r"50\text{ cents}"), (r"\$0.50", "50 cents"),
    (r"\$0.5", "50"), ("90 minutes", "1.5"), (r"72\text{ km/h}", "20"), ("5 million", "5000000"),
    (r"100\text{ cm}^2", "0.01"), (r"10\sqrt{2}\text{ mm}", r"\sqrt{2}"), ("2 dozen", "24"),
    (r"\{3,4\}\text{ feet}", "36,48"), (r"\frac{\pi}{4}\text{ rad}", "45"),
    (r"\frac{\pi}{6}, \frac{\pi}{3}", r"30^\circ, 60^\circ"), (r"90^\circ - x", "90 - x"),
    ("2, 100", "2,100"), ("2,100", "2, 100"),
    ("5", "101_2"), ("101_2", "101"), (r"\pi/4", r"45^\circ"),
    ("(1,2,3)", "1,2,3"), (r"\emptyset", "0"), ("5", "x<5"), ("x=2+3=6", "6"),
    # Too much to read
    ("9" * 5000, "9"), ("1e99999999", "1"), ("x" * 3000, "1"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("box", "answer", "outcome"),
    [
        pytest.param(*pair, outcome, id=f"{outcome}:{pair[0][:40]}|{pair[1]}")
        for outcome, pairs in (("right", RIGHT), ("wrong", WRONG), ("could-not-tell", UNKNOWN))
        for pair in pairs
    ],
)
def test_table(box, answer, outcome):
    result = grade(rf"Therefore \boxed{{{box}}}.", answer)
    assert result.outcome == outcome, result.reason
    assert result.extracted == box
    assert result.reason


@pytest.mark.parametrize(
    ("text", "extracted", "reason"),
    [
        ("It is 42.", None, "no box"),
        ("", None, "no box"),
        (r"\boxed{42", None, "the last box is not closed"),
        (r"\boxed{42} or \boxed{4", None, "the last box is not closed"),
        (r"\boxed{ }", "", "empty box"),
    ],
)
def test_no_answer_is_wrong_and_the_reason_says_so(text, extracted, reason):
    result = grade(text, "42")
    assert (result.outcome, result.extracted, result.reason) == ("wrong", extracted, reason)


def test_the_last_box_counts():
    assert grade(r"\boxed{1}, no: \boxed{2}", "2").outcome == "right"
    assert grade(r"\boxed{2}, no: \boxed{1}", "2").outcome == "wrong"


def test_the_answer_may_stand_in_a_box_itself():
    assert grade(r"\boxed{5}", r"Thus $\boxed{05}$").outcome == "right"


@pytest.mark.parametrize("gold", ["", "  ", r"\boxed{}"])
def test_an_empty_gold_answer_is_told_and_not_scored(gold):
    verdict = grade(r"\boxed{5}", gold)
    assert (verdict.outcome, verdict.path, verdict.score) == ("could-not-tell", "gold", None)
    assert verdict.reason == "the gold answer is empty"


def test_what_cannot_be_told_apart_is_never_called_wrong_for_being_slow():
    result = grade(r"\boxed{10^{10^{10}}+1}", "10^{10^{10}}", timeout=0.3)
    assert (result.outcome, result.path) == ("could-not-tell", "latex")
    assert result.reason == "no verdict within 0.3 s of processor time"


@pytest.mark.parametrize(
    ("box", "gold", "path"),
    [
        ("7", "7", "text"), (r"\,7", "7", "text"), ("073", "73", "integer"), ("8", "7", "integer"),
        ("0.5", r"\frac12", "rational"), ("1/3", "0.3", "rational"), ("2,1", r"\{1,2\}", "list"),
        ("(1,2]", "[1,2]", "list"), ("11_2", "10_2", "base"), (r"\text{No}", "Yes", "words"),
        ("2x", "x+x", "latex"), (r"\pi", "3", "latex"), ("9" * 5000, "9", "none"), ("", "9", "box"),
    ],
)  # fmt: skip
def test_the_verdict_names_the_path_that_decided(box, gold, path):
    assert grade(rf"\boxed{{{box}}}", gold).path == path


@pytest.mark.parametrize("gold", ["7", r"\frac{\pi}{2}", "(1,2)", r"\text{Monday}"])
def test_a_zero_padded_a_framed_and_a_plain_gold_are_the_same(gold):
    for wrapped in (gold, f"${gold}$", rf"\boxed{{{gold}}}", rf" \({gold}\) "):
        assert grade(rf"\fbox{{{gold}}}", wrapped).outcome == "right"


@pytest.mark.parametrize("text", [None, 5, b"x", ["x"]])
def test_a_response_that_is_no_text_is_refused_at_once(text):
    with pytest.raises(TypeError, match=f"response must be text, not {type(text).__name__}"):
        grade(text, "5")


@pytest.mark.parametrize("gold", [5, 5.0, Fraction(10, 2), [5], ["6", 5.0]])
def test_a_number_is_a_gold_answer_too(gold):
    assert grade(r"\boxed{5}", gold).outcome == "right"
    assert grade(r"\boxed{7}", gold).outcome == "wrong"


@pytest.mark.parametrize("gold", [None, b"5", True, {"5": 5}, 5j])
def test_what_is_no_gold_answer_is_refused_at_once(gold):
    kind = type(gold).__name__
    with pytest.raises(TypeError, match=f"^gold must be text, a number or a list .* not {kind}"):
        grade("", gold)
    with pytest.raises(TypeError, match=rf"^gold\[1\] must be text or a number, not {kind}"):
        grade(r"\boxed{5}", ["5", gold])


@pytest.mark.parametrize("gold", [math.nan, math.inf, -math.inf])
def test_a_gold_answer_that_is_missing_or_endless_is_refused(gold):
    with pytest.raises(ValueError, match=f"gold is {gold}; a number must be finite"):
        grade(r"\boxed{5}", gold)


@pytest.mark.parametrize("timeout", [-1, 0, 1e-9, 61, math.nan, math.inf, "5", None, True])
def test_a_timeout_that_no_worker_can_keep_is_refused_by_name(timeout):
    with pytest.raises((TypeError, ValueError), match="^timeout must be .* not "):
        grade(r"\boxed{5}", "5", timeout=timeout)


def test_the_key_of_an_answer_is_the_same_for_equal_numbers_and_notation():
    for same in (
        ["1/2", r"\frac12", "0.5", r"\dfrac{2}{4}", r"$\,0.50$"],
        ["73", "073", "73.0", "x = 73", r"73^\circ"],
        ["1,2", "2, 1", r"\{2,1\}"],
        [r"\frac{\pi}{2}", r"\dfrac {\pi} {2}"],
    ):
        assert len({canonical(one) for one in same}) == 1
    assert len({canonical(one) for one in ("1/2", "2", "(1,2)", "(2,1)", r"\pi", "[1,2]")}) == 6


@contextlib.contextmanager
def processor_seconds(most):
    start = time.process_time()
    yield
    assert time.process_time() - start < most


ODD = [
    " " * 50_000 + "x",
    "1" + " " * 50_000 + "x",
    "1 " * 25_000,
    "\\, " * 20_000,
    "{" * 9999 + "}" * 9999,
]
ODD += [piece * 20_000 for piece in ("1,", "x=", r"\text{", r"\frac", "-", "1/", r"\boxed ", "1 a")]


@pytest.mark.parametrize("box", ODD, ids=lambda box: box[:8])
def test_no_box_however_odd_is_right(box):
    assert grade(rf"\boxed{{{box}}}", "7").outcome in ("could-not-tell", "wrong")
    assert grade(r"\boxed{7}", box).outcome in ("could-not-tell", "wrong")


@pytest.mark.timing
@pytest.mark.parametrize("box", ODD, ids=lambda box: box[:8])
def test_no_box_however_odd_takes_long(box):
    with processor_seconds(10):  # it takes milliseconds; anything quadratic would take minutes
        test_no_box_however_odd_is_right(box)


MEGABYTES = 10_000_000


LONG = {
    "no box": ("x" * MEGABYTES, "wrong"),
    "bare": (r"\boxed " * (MEGABYTES // 7), "wrong"),
    "open": (r"\boxed{" * (MEGABYTES // 7), "wrong"),
    "digits": (r"\boxed{" + "9" * MEGABYTES + "}", "could-not-tell"),
    "braces": (r"\boxed{" + "{" * MEGABYTES + "}", "could-not-tell"),
    "backslashes": (r"\boxed{" + "\\" * MEGABYTES + "}", "could-not-tell"),
    "text": ("x" * MEGABYTES + r"\boxed{7}", "right"),
    "spaces": (r"\boxed{" + " " * MEGABYTES + "7}", "could-not-tell"),
}


@pytest.mark.parametrize("kind", LONG)
def test_ten_megabytes_are_graded(kind):
    text, outcome = LONG[kind]
    assert grade(text, "7").outcome == outcome


@pytest.mark.timing
@pytest.mark.parametrize("kind", LONG)
def test_ten_megabytes_end_in_time(kind):
    with processor_seconds(20):
        test_ten_megabytes_are_graded(kind)


@pytest.mark.parametrize(
    "box",
    [
        "9**9**9", "2^{2^{2^{100}}}", "9^{9^9}", "10^{10^{10^{10}}}", "99999!", "((((9!)!)!)!)!",
        r"\binom{10^{9}}{10^{8}}", r"\frac{1}{" * 200 + "7" + "}" * 200,
        "(" * 900 + "7" + ")" * 900, r"\sqrt{" * 300 + "7" + "}" * 300,
        "x^{10^{9}}", "(x+1)^{99999}", r"\sum_{n=1}^{10^9} \frac{1}{n}", r"\int_0^1 x^x dx",
        r"\lim_{x\to 0} \frac{\sin x}{x} + 10", "1e999999999", "0" * 1900 + "8", "-" * 1000 + "8",
        r"\prod_{n=1}^{10^8} n", r"7^{7^{7^{7}}} \bmod 10 + 3",
    ],
)  # fmt: skip
def test_hostile_formulas_end_and_are_never_right(box):
    assert grade(rf"\boxed{{{box}}}", "6.5", timeout=1).outcome != "right"


@pytest.mark.parametrize("piece", ["1/2x", r"\cup ", "x/", r"(1,2)\cup ", "-", r"\pm ", "a_"])
def test_long_chains_of_anything_are_told_and_not_logged_as_faults(piece, caplog):
    for number in (80, 400):
        box = piece * number + "1"
        assert grade(rf"\boxed{{{box}}}", "7", timeout=1, explain=True).outcome != "right"
        assert grade(r"\boxed{7}", box, timeout=1).outcome != "right"
        assert canonical(box)
    assert caplog.records == []


def test_the_worker_lives_on_after_hostile_input():
    assert grade(r"\boxed{x+x}", "2x").outcome == "right"


def test_numbers_load_neither_sympy_nor_torch():
    code = r"""
import sys
from ctpo.grading import canonical, grade
assert grade(r"\boxed{\frac{10}{4}}", "2.5").outcome == "right"
assert grade(r"\boxed{x = 70^\circ}", "71").outcome == "wrong"
print(sorted({"sympy", "math_verify", "torch", "numpy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "gold", "outcome"),
    [
        (r"\boxed{3} and \boxed{4}", "4, 3", "right"),
        (r"$x=\boxed{3}$ or $x=\boxed{4}$.", "4, 3", "right"),
        (r"\boxed{3} and \boxed{4}", "4", "wrong"),
        (r"Either \boxed{3} or maybe \boxed{4}", "4", "could-not-tell"),
        (r"With $a=\boxed{3}$ this is \boxed{4}", "4", "could-not-tell"),
        (r"With $a=\boxed{3}$ this is \boxed{5}", "4", "wrong"),
        (r"It is \boxed{3}, so the sum is \boxed{4}", "4", "right"),
        (r"It is \boxed{3}. The sum is \boxed{4}", "4", "right"),
        ("\\boxed{3}\n\\boxed{4}", "4", "right"),
        (r"\boxed{4}, \boxed{4}", "4", "right"),
        (r"\boxed{\boxed{4}}", "4", "right"),
        (r"\boxed{2}", r"\boxed{1} and \boxed{2}", "wrong"),
        (r"\boxed{2, 1}", r"\boxed{1} and \boxed{2}", "right"),
        (r"\boxed{2, 1}", "\\boxed{1}.\nAlso, \\boxed{2}.", "right"),
    ],
)
def test_several_boxes_of_one_sentence_are_one_answer_and_all_of_a_gold_answer(text, gold, outcome):
    assert grade(text, gold).outcome == outcome


@pytest.mark.parametrize(
    ("gold", "reason"),
    [
        (r"\boxed{5", "the gold answer is malformed: the last box is not closed"),
        (r"\frac{5", "the gold answer cannot be read: '}' is missing"),
        (r"\nonsense{5}", r"the gold answer cannot be read: \nonsense is not understood"),
    ],
)
def test_a_malformed_gold_is_told_in_one_line_without_a_traceback(gold, reason, caplog):
    verdict = grade(r"\boxed{6}", gold)
    assert (verdict.outcome, verdict.path, verdict.reason) == ("could-not-tell", "gold", reason)
    assert caplog.records == []


def test_an_explained_verdict_tells_how_both_sides_were_read():
    told = grade(r"\boxed{1,234}", r"\text{(B) } \frac{1}{2}", explain=True).reason
    assert "answer read as 1234 or 1, 234" in told
    assert "gold read as choice B, or (1/2)" in told
    told = grade(r"\boxed{x^2=5\text{ cm}}", "6", explain=True).reason
    assert "answer read as (x^2) = 5 [cm]; gold read as 6" in told


@pytest.mark.parametrize("letter", "abdfghjklmnpqrstuvwxyz")
def test_a_letters_case_is_part_of_its_name(letter):
    for form in ("2{}+1", "{}^2", r"\sqrt{{{}}}", "x_1{}"):
        lower, upper = form.format(letter), form.format(letter.upper())
        assert grade(rf"\boxed{{{lower}}}", upper).outcome != "right"
        assert grade(rf"\boxed{{{upper}-{lower}}}", "0").outcome != "right"


@pytest.mark.parametrize("space", [" ", r"\ ", "~", r"\,", r"\;", r"\quad "])
def test_a_space_between_digits_is_never_nothing(space):
    for left, right in (("2", "3"), ("10", "11"), ("3", "1/2"), ("1", "23"), ("2", ".5")):
        assert grade(rf"\boxed{{{left}{space}{right}}}", left + right).outcome != "right"
        assert grade(rf"\boxed{{{left}{right}}}", left + space + right).outcome != "right"


@pytest.mark.parametrize(
    ("box", "golds", "outcome"),
    [
        ("0.5", ["1/3", "1/2"], "right"),
        ("0.5", ["72pow(4", "1/2"], "right"),
        ("0.5", ["1/3", "72pow(4"], "could-not-tell"),
        ("0.5", ["1/3", "1/4"], "wrong"),
        ("0.5", [], "could-not-tell"),
    ],
)
def test_of_several_gold_answers_each_is_right(box, golds, outcome):
    assert grade(rf"\boxed{{{box}}}", golds).outcome == outcome
