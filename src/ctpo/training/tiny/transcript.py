"""A demonstration: what a teacher wrote and what the tool did."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ctpo.tir.episode import Message


@dataclass(frozen=True)
class Transcript:
    """A demonstration.

    Attributes:
        messages: The chat messages of the problem.
        pieces: The response, in order: text and whether the teacher wrote it (else the tool did).
    """

    messages: tuple[Message, ...]
    pieces: tuple[tuple[str, bool], ...]

    @property
    def text(self) -> str:
        """The response as a whole."""
        return "".join(text for text, _ in self.pieces)


def answer(number: str) -> str:
    """Return how an answer ends."""
    return f"\\boxed{{{number}}}"


def miscopied(number: str, random_state: random.Random) -> str:
    """Return a number with one digit changed."""
    places = [i for i, character in enumerate(number) if character.isdigit()]
    place = random_state.choice(places)
    digit = random_state.choice([d for d in "123456789" if d != number[place]])
    return number[:place] + digit + number[place + 1 :]
