"""One problem, whichever way it came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Message = dict[str, str]
Split = Literal["train", "held-out", "test"]


@dataclass(frozen=True)
class Problem:
    """A question with a known answer.

    Attributes:
        id: Stable identifier, unique within the list it came in.
        messages: The chat put to the model, each message with a "role" and a "content".
        answer: The right answer, as the source writes it.
        also: Other answers that are right, too.
        source: Name of the built-in template, or the file's `data_source`.
        split: "train", "held-out" (built-in problems never trained on) or "test".
        level: Digits of the operands of a built-in problem; 0 for a problem from a file.
        operands: What the built-in problem's text is made of; empty for a problem from a file.
        row: All that the source says of the problem, for rewards of one's own; empty for a built-in
            one.
    """

    id: str
    messages: tuple[Message, ...]
    answer: str
    source: str
    split: Split
    level: int = 0
    operands: tuple[int, ...] = ()
    row: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)
    also: tuple[str, ...] = ()

    @property
    def golds(self) -> tuple[str, ...]:
        """All answers that are right, as `grading.grade` takes them."""
        return (self.answer, *self.also)
