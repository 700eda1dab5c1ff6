"""A sloppy teacher: transcripts that show how the tool is used and are often wrong.

Reinforcement learning needs a policy that can already do the task sometimes. The teacher shows
everything that is needed and prefers, in about half the cases, one plausible wrong program per
template. A model that imitates it can use the tool, and is wrong often enough, even when it takes
the likeliest token, for there to be something to learn.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ctpo.tasks import Problem
from ctpo.tasks.chain import SOURCE
from ctpo.tir.calls import format_output
from ctpo.training.tiny.chain_teacher import demonstrate_chain
from ctpo.training.tiny.transcript import Transcript, answer, miscopied

Operands = tuple[int, ...]

GUESS_RATE = 0.10  # answers without using the tool
MISSING_PRINT_RATE = 0.06  # programs that print nothing, so that the answer is a guess
MISCOPY_RATE = 0.08  # one digit of the tool's output is changed in the answer


@dataclass(frozen=True)
class _Habit:
    """How the teacher solves one template.

    Attributes:
        right: Operands to a Python expression for the answer.
        wrong: Operands to the expression the teacher writes when it slips.
        slip_rate: How often it slips.
        preamble: Lines that go before the expression.
    """

    right: Callable[[Operands], str]
    wrong: Callable[[Operands], str]
    slip_rate: float
    preamble: str = ""


def _product(operands: Operands, *, brackets: bool) -> str:
    a, b, c = operands
    inner = f"{b}{c:+d}"
    return f"{a}*({inner})" if brackets else f"{a}*{inner}"


_HABITS: dict[str, _Habit] = {
    # The last term is forgotten.
    "power-sum": _Habit(
        lambda o: f"sum(k**{o[2]} for k in range({o[0]}, {o[1]}+1))",
        lambda o: f"sum(k**{o[2]} for k in range({o[0]}, {o[1]}))",
        0.60,
    ),
    # A power is taken for a product.
    "modular-power": _Habit(
        lambda o: f"pow({o[0]}, {o[1]}, {o[2]})", lambda o: f"{o[0]}*{o[1]}%{o[2]}", 0.45
    ),
    # The smaller number is taken for a divisor of both.
    "gcd": _Habit(
        lambda o: f"gcd({o[0]}, {o[1]})",
        lambda o: f"min({o[0]}, {o[1]})",
        0.35,
        "from math import *\n",
    ),
    # The larger number is taken for a multiple of both.
    "lcm": _Habit(
        lambda o: f"lcm({o[0]}, {o[1]})",
        lambda o: f"max({o[0]}, {o[1]})",
        0.55,
        "from math import *\n",
    ),
    # "or" is taken for "and".
    "count-divisible": _Habit(
        lambda o: f"sum(k%{o[1]}==0 or k%{o[2]}==0 for k in range(1, {o[0]}+1))",
        lambda o: f"sum(k%{o[1]}==0 and k%{o[2]}==0 for k in range(1, {o[0]}+1))",
        0.65,
    ),
    # The brackets are forgotten.
    "product": _Habit(
        lambda o: _product(o, brackets=True), lambda o: _product(o, brackets=False), 0.50
    ),
    "digit-sum": _Habit(
        lambda o: f"sum(map(int, str({o[0]}**{o[1]})))",
        lambda o: f"sum(map(int, str({o[0]}*{o[1]})))",
        0.40,
    ),
}


def program(problem: Problem, *, slip: bool) -> str:
    """Return the teacher's program for a built-in problem.

    Args:
        problem: The problem.
        slip: Whether to write the template's wrong program.

    Raises:
        ValueError: The problem is of no built-in template.
    """
    habit = _habit(problem)
    expression = (habit.wrong if slip else habit.right)(problem.operands)
    return f"{habit.preamble}print({expression})"


def demonstrate(problem: Problem, random_state: random.Random) -> Transcript:
    """Return one transcript of the sloppy teacher.

    Raises:
        ValueError: The problem is of no built-in template.
    """
    habit = _habit(problem)
    guess = _guess(problem, random_state)
    if random_state.random() < GUESS_RATE:
        return Transcript(problem.messages, ((answer(guess), True),))
    slip = random_state.random() < habit.slip_rate
    code = program(problem, slip=slip)
    if random_state.random() < MISSING_PRINT_RATE:
        code = code.replace("print(", "", 1)[:-1]
        output, shown = "", guess
    else:
        # Our own expression on our own integers: nothing untrusted is evaluated here.
        expression = (habit.wrong if slip else habit.right)(problem.operands)
        shown = str(eval(expression, {"gcd": math.gcd, "lcm": math.lcm}))  # noqa: S307
        output = shown + "\n"
        if random_state.random() < MISCOPY_RATE:
            shown = miscopied(shown, random_state)
    # No line break behind the fence: that is where generation stops.
    call = f"```python\n{code}\n```"
    # The limit never bites: the longest answer of the family has a dozen digits.
    tool = format_output(output, after=call, limit=10_000)
    return Transcript(problem.messages, ((call, True), (tool, False), (answer(shown), True)))


def demonstrations(problems: Sequence[Problem], seed: int) -> list[Transcript]:
    """Return one transcript per problem; the same seed gives the same ones."""
    random_state = random.Random(f"teacher {seed}")
    return [
        (demonstrate_chain if problem.source == SOURCE else demonstrate)(problem, random_state)
        for problem in problems
    ]


def _habit(problem: Problem) -> _Habit:
    if problem.source not in _HABITS:
        raise ValueError(
            f"source is {problem.source!r} in problem {problem.id}; "
            f"the teacher knows {', '.join(_HABITS)}"
        )
    return _HABITS[problem.source]


def _guess(problem: Problem, random_state: random.Random) -> str:
    """A number about as long as the answer."""
    digits = max(1, len(problem.answer.lstrip("-")))
    return str(random_state.randrange(10 ** (digits - 1), 10**digits))
