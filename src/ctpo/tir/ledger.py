"""When an episode goes on and when it ends: one rule book, whether its turns are tokens or text."""

from __future__ import annotations

from ctpo.tir.calls import Call
from ctpo.tir.generation import StopReason
from ctpo.tir.settings import EpisodeSettings
from ctpo.tir.trajectory import FinishReason


class Ledger:
    """What one episode has used, and so what it may still do.

    Enter each turn of the policy (`turn`) and, if that was a call to run, how long the text is that
    answers it (`output`), until there is a `finish` reason.

    Attributes:
        left: Tokens that may still follow.
        calls: Calls answered so far.
        finish: Why the episode is over; None while it is not.
    """

    def __init__(self, settings: EpisodeSettings) -> None:
        self._settings = settings
        self.left = settings.max_response_tokens
        self.calls = 0
        self.finish: FinishReason | None = None

    def turn(self, text: str, tokens: int, reason: StopReason) -> Call | None:
        """Enter a turn of the policy; returns its call if it is to be run."""
        self.left -= tokens
        if reason != "stop":
            self.finish = "answered" if reason == "eos" else "length"
            return None
        if self.calls == self._settings.max_calls:
            self.finish = "calls"
            return None
        if self.left <= 0:  # nothing is left to read the output with
            self.finish = "length"
            return None
        call = self._settings.protocol.find_call(text)
        assert call is not None, "the stop rule held, so there is a call"
        return call

    def output(self, tokens: int) -> bool:
        """Enter the answer to a call; returns whether it fits and the policy is to go on.

        Args:
            tokens: How many tokens its text takes in the context.
        """
        self.calls += 1
        # One token must be left for the policy to speak.
        if tokens >= self.left:
            self.finish = "length"
            return False
        self.left -= tokens
        return True
