"""The protocol every generation back end speaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

StopReason = Literal["eos", "stop", "length"]


@dataclass(frozen=True)
class Sampled:
    """What a row sampled in one turn.

    Attributes:
        ids: The sampled token ids, the ending one included.
        logprobs: Their natural log-probabilities at the sampling temperature, one each.
        reason: `eos` (the model ended its turn), `stop` (the stop rule held) or `length`.
    """

    ids: list[int]
    logprobs: list[float]
    reason: StopReason


class StopRule(Protocol):
    """Says after which text a turn ends.

    Attributes:
        trigger: Characters of which a token that can make the rule hold has at least one; the rule
            is asked only after such tokens.
    """

    trigger: str

    def __call__(self, text: str) -> bool:
        """Return whether the turn that reads `text` so far is over."""
        ...


class Session(Protocol):
    """A batch of growing contexts whose computed state is kept between turns."""

    def generate(
        self,
        rows: Sequence[int],
        append: Sequence[Sequence[int]],
        budgets: Sequence[int],
        stop: StopRule,
    ) -> list[Sampled]:
        """Append tokens to rows that are not over, then sample each on.

        Args:
            rows: Indices into the prompts the session was opened with.
            append: For each of `rows`, token ids to put behind its context first (a tool's output).
            budgets: For each of `rows`, the most tokens to sample; at least 1.
            stop: Ends a row's turn early.

        Returns:
            For each of `rows`, what it sampled. A row that ended with `eos` or `length` is over.
        """
        ...


class Generator(Protocol):
    """A model one can sample from."""

    def open(self, prompts: Sequence[Sequence[int]], *, temperature: float, seed: int) -> Session:
        """Start a session on a batch of prompts.

        Args:
            prompts: Token ids, one list per row.
            temperature: Divides the logits; 0 takes the likeliest token.
            seed: The same seed, prompts and model give the same tokens.
        """
        ...
