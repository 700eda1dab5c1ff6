import random
import re
from collections import Counter

import pytest

from ctpo.tasks import TEMPLATES, generate
from ctpo.tir.calls import find_call
from ctpo.training.tiny import teacher
from ctpo.training.tiny.transcript import miscopied


@pytest.fixture(scope="module")
def problems():
    return generate(350, seed=5) + generate(70, seed=6, digits=3)


def test_right_programs_are_right_and_slips_are_plausibly_wrong(problems, sandbox):
    right = sandbox.run_many([teacher.program(p, slip=False) for p in problems])
    wrong = sandbox.run_many([teacher.program(p, slip=True) for p in problems])
    assert [r.stdout.strip() for r in right] == [p.answer for p in problems]
    mistaken: Counter[str] = Counter()
    for problem, execution in zip(problems, wrong, strict=True):
        assert execution.status == "success"
        mistaken[problem.source] += execution.stdout.strip() != problem.answer
    for name in TEMPLATES:
        assert mistaken[name] >= 0.9 * len(problems) / len(TEMPLATES), name


def test_shown_outputs_are_what_the_programs_print(problems, sandbox):
    transcripts = teacher.demonstrations(problems, seed=1)
    with_tool = [t for t in transcripts if len(t.pieces) == 3]
    codes = [find_call(t.pieces[0][0]) for t in with_tool]
    for transcript, execution in zip(with_tool, sandbox.run_many(codes), strict=True):
        assert transcript.pieces[1] == (f"\n```output\n{execution.stdout}```\n", False)


def test_the_teacher_is_as_sloppy_as_announced():
    problems = generate(2100, seed=3)
    transcripts = teacher.demonstrations(problems, seed=2)
    guesses = sum(len(t.pieces) == 1 for t in transcripts)
    assert guesses / 2100 == pytest.approx(teacher.GUESS_RATE, abs=0.03)
    with_tool = [t for t in transcripts if len(t.pieces) == 3]
    silent = sum("print(" not in t.pieces[0][0] for t in with_tool)
    assert silent / len(with_tool) == pytest.approx(teacher.MISSING_PRINT_RATE, abs=0.02)
    slips: Counter[str] = Counter()
    used: Counter[str] = Counter()
    wrong = printed = 0
    for problem, transcript in zip(problems, transcripts, strict=True):
        if len(transcript.pieces) == 1 or "print(" not in transcript.pieces[0][0]:
            continue
        used[problem.source] += 1
        slips[problem.source] += teacher.program(problem, slip=True) in transcript.pieces[0][0]
        (output,) = re.findall(r"output\n(.*)\n", transcript.pieces[1][0])
        printed += 1
        wrong += f"\\boxed{{{output}}}" != transcript.pieces[2][0]
    assert wrong / printed == pytest.approx(teacher.MISCOPY_RATE, abs=0.025)
    for name in TEMPLATES:
        assert 0.25 < slips[name] / used[name] < 0.75, name


def test_the_same_seed_gives_the_same_transcripts(problems):
    assert teacher.demonstrations(problems, 1) == teacher.demonstrations(problems, 1)
    assert teacher.demonstrations(problems, 1) != teacher.demonstrations(problems, 2)


def test_a_miscopied_number_differs_in_one_digit():
    for seed in range(50):
        number = str(random.Random(seed).randrange(1, 10**6))
        other = miscopied(number, random.Random(seed))
        assert len(other) == len(number)
        assert sum(a != b for a, b in zip(number, other, strict=True)) == 1
