"""The built-in family of long answers: a number is carried through a list of steps.

Each step is one line of Python on what came out of the step before. A slip anywhere spoils
everything that follows, and nothing after it can mend it.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ctpo.tasks.problem import Problem

SOURCE = "chain"
STEPS = 6


@dataclass(frozen=True)
class Step:
    """One kind of step; its values stay between 0 and 999.

    Attributes:
        text: What the question says, given the step's two numbers.
        value: The number before and the step's two to the number after.
        largest: Of the first number; the second is always one to divide by, of three digits.
    """

    text: Callable[[int, int], str]
    value: Callable[[int, int, int], int]
    largest: int


KINDS: dict[str, Step] = {
    "times": Step(lambda a, m: f"times {a} mod {m}", lambda x, a, m: x * a % m, 99),
    "power": Step(lambda a, m: f"power {a} mod {m}", lambda x, a, m: pow(x, a, m), 99),
    "lcm": Step(lambda a, m: f"lcm {a} mod {m}", lambda x, a, m: math.lcm(x, a) % m, 99),
}


def steps(operands: tuple[int, ...]) -> list[tuple[str, int, int]]:
    """Return the kind and the two numbers of each step of a problem.

    Args:
        operands: A problem's: the first number, and then three for each step.
    """
    kinds = list(KINDS)
    return [(kinds[k], a, m) for k, a, m in zip(*(operands[i::3] for i in (1, 2, 3)), strict=True)]


def generate_chains(
    count: int, seed: int, split: Literal["train", "held-out"] = "train", hard_fraction: float = 0.0
) -> list[Problem]:
    """Draw distinct chains.

    A chain is held out if a hash of it says so, which is one in ten; no seed trains on one.

    Args:
        count: Number of problems.
        seed: The same seed gives the same list, on every machine.
        split: Which part to draw from.
        hard_fraction: Has no effect on chains and must be 0.

    Raises:
        ValueError: `count` is negative, or an argument has no effect.
    """
    if count < 0:
        raise ValueError(f"count is {count}; it must be 0 or more")
    if hard_fraction:
        raise ValueError(f"hard_fraction is {hard_fraction}; it has no effect on chains")
    random_state = random.Random(f"chain {seed}")
    found: dict[str, Problem] = {}
    while len(found) < count:
        problem = _drawn(random_state, split)
        held_out = int(problem.id.rpartition("-")[2], 16) % 10 == 0
        if held_out == (split == "held-out"):
            found.setdefault(problem.id, problem)
    return list(found.values())


def _drawn(random_state: random.Random, split: Literal["train", "held-out"]) -> Problem:
    value = random_state.randint(11, 99)
    operands, texts = [value], [f"Start with {value}."]
    kinds = list(KINDS)
    for number in range(1, STEPS + 1):
        # What ends at 0 or 1 would stay there, or be guessed.
        while True:
            kind = random_state.randrange(len(kinds))
            a, m = (
                random_state.randint(3, KINDS[kinds[kind]].largest),
                random_state.randint(101, 999),
            )
            after = KINDS[kinds[kind]].value(value, a, m)
            if after > 9:
                break
        value = after
        operands += [kind, a, m]
        texts.append(f"Step {number}: {KINDS[kinds[kind]].text(a, m)}.")
    text = "\n".join(texts)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return Problem(
        id=f"{SOURCE}-{digest}",
        messages=({"role": "user", "content": text},),
        answer=str(value),
        source=SOURCE,
        split=split,
        level=STEPS,
        operands=tuple(operands),
    )
