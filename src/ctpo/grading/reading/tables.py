r"""Read LaTeX's environments with rows: matrices, and values each with its condition."""

from __future__ import annotations

import re

from ctpo.grading.reading.cursor import Cursor
from ctpo.grading.reading.tree import Node, Undecided

_IF = re.compile(r"(?:if|for|when)\s*", re.IGNORECASE)


class Tables(Cursor):
    r"""What stands between `\begin` and `\end`."""

    def environment(self) -> Node:
        """Reads a matrix, or cases."""
        kind = self.name_in_braces()
        if kind == "array":
            self.name_in_braces()
        if kind not in ("array", "cases") and not re.fullmatch("[pbBv]?(?:small)?matrix", kind):
            raise Undecided(f"the environment {kind}")
        rows: list[list[Node]] = [[]]
        while not (self.text == "end" and self.kind == "cmd"):
            if self.text == "&":
                self.at += 1
                if kind == "cases":
                    rows[-1].append(self._condition())
            elif self.kind == "cmd" and self.text in ("\\", "cr"):
                self.at += 1
                rows.append([])
            elif self.text == "hline" or (self.text == "," and kind == "cases"):
                self.at += 1
            else:
                rows[-1].append(self.sum())
        self.at += 1
        if self.name_in_braces() != kind:
            raise Undecided("an environment that ends as another")
        rows = [row for row in rows if row]
        if not rows or any(len(row) != len(rows[0]) for row in rows):
            raise Undecided("a matrix with holes")
        if kind == "cases":
            if len(rows[0]) != 2:
                raise Undecided("cases without their conditions")
            return Node("cases", tuple(Node("case", tuple(row)) for row in rows))
        cells = tuple(cell for row in rows for cell in row)
        node = Node("matrix", cells, (len(rows), len(rows[0])))
        return Node("call", (node,), "det") if kind.startswith("v") else node

    def _condition(self) -> Node:
        """Reads `if x > 0`; with other words in it, such as `n even`, it is those words."""
        start = self.at
        while self.text not in ("\\", "cr", "end") and self.kind != "end":
            self.at += 1
        end = self.at
        while end > start and self.tokens[end - 1].text in (",", ";", "."):
            end -= 1
        tokens = self.tokens[start:end]
        if tokens and tokens[0].kind == "text":
            tokens[0].text = _IF.sub("", tokens[0].text)
            tokens = tokens[not tokens[0].text :]
        if not tokens:
            raise Undecided("cases without their conditions")
        if any(token.kind == "text" for token in tokens):
            return Node(
                "words", (), " ".join(token.text for token in tokens).casefold().strip(" .,")
            )
        outside, self.tokens, self.at = (self.tokens, self.at), tokens, 0
        node = self.answer()
        if self.kind != "end":
            raise Undecided("a condition that is not understood")
        self.tokens, self.at = outside
        return node

    def name_in_braces(self) -> str:
        """Reads `{pmatrix}`."""
        self.expect("{")
        parts = []
        while self.text != "}":
            parts.append(self.take().text)
        self.expect("}")
        return "".join(parts)
