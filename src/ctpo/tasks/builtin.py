"""Lists of built-in problems, reproducible from a seed, with a tenth that is never trained on."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Literal

from ctpo.tasks.problem import Problem
from ctpo.tasks.templates import TEMPLATES, Operands, Template

EASY_DIGITS, HARD_DIGITS = 2, 3

# A template has given all it has when this many draws in a row bring nothing new. The smallest has
# some fifteen hundred questions, so one that is as likely as the rest is practically never missed.
PATIENCE = 20_000


def generate(
    count: int,
    seed: int,
    digits: int = EASY_DIGITS,
    hard_fraction: float = 0.0,
    split: Literal["train", "held-out"] = "train",
) -> list[Problem]:
    """Draws distinct built-in problems, equally many from each template.

    The held-out problems are a fixed tenth of all there are, chosen by a hash of the template and
    its operands whatever their order: no seed ever trains on one, nor on its mirror image (gcd of
    a and b, gcd of b and a).

    Args:
        count: Number of problems.
        seed: The same seed gives the same list, on every machine.
        digits: Decimal digits of the operands, 2 or 3.
        hard_fraction: Share of problems with three-digit operands instead, 0 to 1.
        split: Which part to draw from.

    Returns:
        The problems, shuffled. No template has more than one problem more than another.

    Raises:
        ValueError: If an argument is out of range or without effect, or if fewer problems exist.
    """
    if count < 0:
        raise ValueError(f"count is {count}; it must be 0 or more")
    if digits not in (EASY_DIGITS, HARD_DIGITS):
        raise ValueError(f"digits is {digits}; it must be {EASY_DIGITS} or {HARD_DIGITS}")
    if not 0 <= hard_fraction <= 1:
        raise ValueError(f"hard_fraction is {hard_fraction}; it must be between 0 and 1")
    if digits == HARD_DIGITS and hard_fraction:
        raise ValueError(
            f"hard_fraction is {hard_fraction} but digits is {digits}: all are three-digit already"
        )
    if split not in ("train", "held-out"):
        raise ValueError(f"split is {split!r}; it must be 'train' or 'held-out'")

    rng = random.Random(seed)
    hard = round(count * hard_fraction)
    names = list(TEMPLATES)
    wanted: dict[tuple[str, int], int] = {}
    for index in range(count):
        cell = names[index % len(names)], HARD_DIGITS if index < hard else digits
        wanted[cell] = wanted.get(cell, 0) + 1
    problems = [
        problem
        for (name, level), number in wanted.items()
        for problem in _distinct(TEMPLATES[name], level, number, split, rng)
    ]
    rng.shuffle(problems)
    return problems


def _distinct(
    template: Template,
    digits: int,
    number: int,
    split: Literal["train", "held-out"],
    rng: random.Random,
) -> Iterator[Problem]:
    """Draws `number` different problems of one template on one side of the split."""
    seen: set[Operands] = set()
    misses = 0
    while len(seen) < number:
        operands = template.draw(rng, digits)
        if operands in seen or _is_held_out(template.name, operands) != (split == "held-out"):
            misses += 1
            if misses == PATIENCE:
                raise ValueError(
                    f"{number} {split} problems of {template.name!r} with {digits} digits were"
                    f" asked for and about {len(seen)} exist; ask for fewer, or for more digits"
                )
            continue
        misses = 0
        seen.add(operands)
        yield _problem(template, operands, digits, split)


def _is_held_out(name: str, operands: Operands) -> bool:
    """Whether these operands, in whatever order, are in the tenth that is never trained on."""
    return int(_digest(f"{name} {sorted(operands)}"), 16) % 10 == 0


def _problem(
    template: Template, operands: Operands, digits: int, split: Literal["train", "held-out"]
) -> Problem:
    text = template.text(operands)
    return Problem(
        id=f"{template.name}-{_digest(text)}",
        messages=({"role": "user", "content": text},),
        answer=str(template.answer(operands)),
        source=template.name,
        split=split,
        level=digits,
        operands=operands,
    )


def _digest(text: str) -> str:
    """Twelve hexadecimal digits that Python's own, per-process hash would not keep stable."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
