"""The sloppy teacher of the chain: one call a step, each perhaps the wrong one."""

from __future__ import annotations

import math
import random

from ctpo.tasks import Problem
from ctpo.tasks.chain import KINDS, steps
from ctpo.tir.calls import format_output
from ctpo.training.tiny.transcript import Transcript, answer, miscopied

# How often the teacher slips at a step of each kind. Powers mostly go wrong, so that even the
# likeliest answer is wrong where there is one.
SLIP_RATES = {"times": 0.1, "power": 0.55, "lcm": 0.1}
MISCOPY_RATE = 0.01  # of each number that is carried on

_RIGHT = {"times": "{x}*{a}%{m}", "power": "pow({x}, {a}, {m})", "lcm": "lcm({x}, {a})%{m}"}
# A power is taken for a product, a product for a sum, and a multiple of both for the larger.
_WRONG = {"times": "({x}+{a})%{m}", "power": "{x}*{a}%{m}", "lcm": "max({x}, {a})%{m}"}


def demonstrate_chain(problem: Problem, random_state: random.Random) -> Transcript:
    """Return one transcript of the sloppy teacher."""
    shown = str(problem.operands[0])
    pieces: list[tuple[str, bool]] = []
    for number, (kind, a, m) in enumerate(steps(problem.operands), start=1):
        slip = random_state.random() < SLIP_RATES[kind]
        expression = (_WRONG if slip else _RIGHT)[kind].format(x=shown, a=a, m=m)
        head = "from math import *\n" if kind == "lcm" else ""
        said = f"Step {number}: {shown} {KINDS[kind].text(a, m)}.\n"
        call = f"{said}```python\n{head}print({expression})\n```"
        # Our own expression on our own integers: nothing untrusted is evaluated here.
        shown = str(eval(expression, {"lcm": math.lcm}))  # noqa: S307
        pieces += [(call, True), (format_output(shown + "\n", after=call, limit=10_000), False)]
        if random_state.random() < MISCOPY_RATE:
            shown = miscopied(shown, random_state)
    return Transcript(problem.messages, (*pieces, (answer(shown), True)))
