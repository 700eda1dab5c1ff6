"""A place in a row of tokens, and what every part of the reader asks of it."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ctpo.grading.tokens import Token
from ctpo.grading.tree import Node, Undecided

_END = Token("end", "")


class Cursor(ABC):
    """Where the reader is. The grammar's levels are classes on top of one another.

    Args:
        tokens: What is read.
        tight: See `latex.read`.
    """

    def __init__(self, tokens: list[Token], tight: bool) -> None:
        self.tokens, self.tight = tokens, tight
        self.at = self.depth = self.bars = 0
        self.builder = self.slashed = False

    @property
    def kind(self) -> str:
        """The next token's kind."""
        return self.tokens[self.at].kind if self.at < len(self.tokens) else "end"

    @property
    def text(self) -> str:
        """The next token's text."""
        return self.tokens[self.at].text if self.at < len(self.tokens) else ""

    @property
    def ahead(self) -> Token:
        """The token after the next."""
        return self.tokens[self.at + 1] if self.at + 1 < len(self.tokens) else _END

    def take(self) -> Token:
        """Returns the next token and goes on."""
        if self.at >= len(self.tokens):
            raise Undecided("it breaks off")
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, *texts: str) -> str:
        """Takes one of these."""
        if self.text not in texts or self.kind not in ("op", "cmd"):
            raise Undecided(
                f"{texts[0]!r} is missing" + (f" before {self.text!r}" * bool(self.text))
            )
        return self.take().text

    @abstractmethod
    def answer(self) -> Node:
        """Reads a list, or its only item."""

    @abstractmethod
    def sum(self) -> Node:
        """Reads a sum."""

    @abstractmethod
    def term(self) -> Node:
        """Reads a product."""

    @abstractmethod
    def primary(self) -> Node:
        """Reads one thing: a number, a symbol, something in brackets."""

    @abstractmethod
    def power(self) -> Node:
        """Reads one thing with its exponent."""

    @abstractmethod
    def exponent(self) -> Node:
        """Reads what stands behind `^`."""
