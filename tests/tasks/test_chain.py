import ast
import math
import random
import re

import pytest

from ctpo.tasks import generate_chains
from ctpo.training.problems import problems_of_source
from ctpo.training.tiny.chain_teacher import demonstrate_chain


def by_hand(text):
    """The answer to a chain, from its question alone."""
    value = int(re.findall(r"^Start with (\d+)\.$", text, re.M)[0])
    steps = re.findall(r"^Step \d: (\w+) (\d+) mod (\d+)\.$", text, re.M)
    assert len(steps) == 6
    for kind, a, m in [(k, int(a), int(m)) for k, a, m in steps]:
        if kind == "times":
            value = value * a
        elif kind == "power":
            value = math.prod([value] * a)
        else:
            value = value * a // math.gcd(value, a)
        value %= m
    return str(value)


@pytest.mark.parametrize("split", ["train", "held-out"])
def test_the_answer_is_what_the_question_leads_to(split):
    problems = generate_chains(200, seed=3, split=split)
    assert all(p.answer == by_hand(p.messages[0]["content"]) for p in problems)
    assert len({p.id for p in problems}) == 200
    # No number is a good guess.
    assert max(map([p.answer for p in problems].count, {p.answer for p in problems})) <= 5


def test_no_seed_trains_on_a_chain_that_is_held_out():
    held_out = {p.id for p in generate_chains(300, seed=0, split="held-out")}
    trained = {p.id for seed in range(3) for p in generate_chains(300, seed=seed)}
    assert not held_out & trained


def test_a_slip_at_any_step_spoils_the_answer_and_without_one_it_is_right():
    chance = random.Random(0)
    spoilt: dict[bool, list[bool]] = {True: [], False: []}
    for problem in generate_chains(400, seed=1):
        transcript = demonstrate_chain(problem, chance)
        # Each step's program, run by hand on the number that it names, prints what the tool shows.
        programs = re.findall(r"print\((.*)\)\n```", transcript.text)
        outputs = re.findall(r"```output\n(\d+)\n```", transcript.text)
        assert len(programs) == len(outputs) == 6
        carried = [re.findall(r"^Step \d: (\d+)", t)[0] for t, own in transcript.pieces[:-1] if own]
        (answer,) = re.findall(r"\\boxed\{(\d+)\}$", transcript.text)
        slipped = [str(problem.operands[0]), *outputs] != [*carried, answer]
        kinds = problem.operands[1::3]
        for kind, program in zip(kinds, programs, strict=True):
            assert ast.parse(program, mode="eval")
            right = (r"\d+\*\d+%\d+", r"pow\(\d+, \d+, \d+\)", r"lcm\(\d+, \d+\)%\d+")[kind]
            slipped |= not re.fullmatch(right, program)
        spoilt[slipped].append(answer != problem.answer)
    assert not any(spoilt[False]) and len(spoilt[False]) > 40
    # Now and then two ways lead to one number, above all where the last step is the one.
    assert sum(spoilt[True]) > 0.9 * len(spoilt[True]) and len(spoilt[True]) > 100


def test_what_has_no_effect_on_a_chain_is_refused():
    with pytest.raises(ValueError, match="hard_fraction is 0.5; it has no effect on chains"):
        problems_of_source("builtin-chain", 4, hard_fraction=0.5)
    with pytest.raises(ValueError, match="of builtin-chain it must be train or held-out"):
        problems_of_source("builtin-chain", 4, "test")
    with pytest.raises(ValueError, match="count is -1"):
        generate_chains(-1, seed=0)
