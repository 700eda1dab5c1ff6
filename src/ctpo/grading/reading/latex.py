r"""Read LaTeX, and what people write in its place, into a tree: strictly, or not at all.

A reader of its own, because the ones there are accept nearly everything and so misread some of it:
docs/grading.md has the figures. What is not in the grammar below raises `Undecided`.

    answer   = relation {("," | ";" | "and" | "or") relation}
    relation = ratio {("=" | "<" | "\le" | "\in" | ...) ratio}
    ratio    = sets {":" sets}
    sets     = sum {("\cup" | "\cap" | "\setminus") sum}
    sum      = ["-" | "\pm"] term {("+" | "-" | "\pm" | "\mp") term}
    term     = power {["*" | "/" | "\bmod"] power} [unit | "%"]
    power    = primary {"^" exponent | "!" | "!!" | degrees}
"""

from __future__ import annotations

from fractions import Fraction

from ctpo.grading.reading.built import (
    approximated,
    as_decimal,
    negated,
    parted,
    product,
    ratio_of,
    sum_of,
)
from ctpo.grading.reading.primary import Primary
from ctpo.grading.reading.regions import is_constant
from ctpo.grading.reading.signs import APPROXIMATE, DOTS, LOGICAL, RELATIONS, SETS, TIMES
from ctpo.grading.reading.tokens import cut
from ctpo.grading.reading.tree import Node, Undecided, number


def read(text: str, tight: bool = False) -> tuple[Node, bool]:
    r"""Reads an answer.

    Args:
        text: LaTeX without typography, as `surface.strip` leaves it.
        tight: Whether in `1/2x`, without a space, the x belongs below the line, and in
            `\sin\pi/3` the 3 under the sine.

    Returns:
        The tree, and whether `tight` makes a difference.

    Raises:
        Undecided: If it cannot be read in full; the message says where.
    """
    parser = Parser(cut(text), tight)
    node = parser.whole()
    if parser.kind != "end":
        raise Undecided(f"{parser.text!r} is not understood there")
    return node, parser.slashed


class Parser(Primary):
    """Recursive descent over the tokens; one method for each line of the grammar."""

    def answer(self) -> Node:
        """Reads a list, or its only item."""
        items, separators, logical = [self.relation()], [], False
        while self._separates():
            found: set[str] = set()
            before = self.at
            while self._separates():
                logical = logical or self.kind == "cmd"
                if self.kind != "sep" and found & {"tight", "apart"}:
                    raise Undecided("nothing between two commas")
                found.add(LOGICAL.get(self.text, self.text) if self.kind != "op" else "tight")
                if self.text == ";":
                    found |= {";", "apart"}
                if self.tokens[self.at].spaced or self.ahead.spaced:
                    found.add("apart")
                self.at += 1
            if self.kind == "end" or self.text in ("}", ")", "]", r"}", "rbrace"):
                if self.tokens[before].kind == "sep":
                    raise Undecided("a list that breaks off")
                break  # a comma at the end
            separators.append(found)
            items.append(self.relation())
        if logical and not all(item.op == "rel" for item in items):
            raise Undecided("a statement of logic")
        if all(item.op == "num" for item in items) and {"tight"} in separators:
            if any(";" in found for found in separators):
                raise Undecided("commas that separate, or decimal ones")
        tight = all(found == {"tight"} for found in separators)
        if len(items) > 1 and tight:
            items = [part for item in items for part in parted(item)]
        if len(items) == 1:
            return items[0]
        word = "or" if any("or" in found for found in separators) else "and"
        ratio = ratio_of(items[1]) if len(items) == 2 and "and" in separators[0] else None
        if items[0].op == "num" and ratio is not None and 0 < ratio < 1:
            raise Undecided("a mixed number, or two")
        listed = Node(
            "list", tuple(items), word if {"and", "or"} & set().union(*separators) else ","
        )
        decimal = as_decimal(items) if tight else None
        return Node("either", (listed, decimal)) if decimal else listed

    def _separates(self) -> bool:
        logical = self.kind == "cmd" and self.text in LOGICAL
        return self.kind == "sep" or self.text in (",", ";") or logical

    def relation(self) -> Node:
        """Reads an equation, a chain of inequalities, or no relation at all."""
        if self.kind == "cmd" and self.text in DOTS:
            self.at += 1
            return Node("dots")
        if self.text in RELATIONS and self.kind in ("op", "cmd"):  # "≥ 5"
            sign = RELATIONS[self.take().text]
            return Node("rel", (Node("blank"), self.ratio()), (sign,))
        parts, signs = [self.ratio()], []
        while self.kind in ("op", "cmd") and self.text in RELATIONS:
            signs.append(RELATIONS[self.take().text])
            parts.append(self.ratio())
        if self.kind == "cmd" and self.text in APPROXIMATE:
            parts[-1] = self._approximated(parts[-1])
        if self.kind == "cmd" and self.text == "pmod" and len(parts) < 3:
            self.at += 1
            parts[-1] = Node("class", (parts[-1], self.argument()))
        return Node("rel", tuple(parts), tuple(signs)) if signs else parts[0]

    def _approximated(self, exact: Node) -> Node:
        r"""Reads `\sqrt2 \approx 1.41` as what is exact, or else as the decimal."""
        plain = exact.op == "num" or not is_constant(exact)
        if plain or exact.has("unit", "degree", "percent") or self.take().text in DOTS:
            raise Undecided("an approximation")
        decimal = self.sum()
        decimal = decimal.args[0] if decimal.op == "unit" else decimal
        if not is_constant(decimal) or (self.kind == "cmd" and self.text in APPROXIMATE):
            raise Undecided("an approximation")
        return approximated(exact, decimal)

    def ratio(self) -> Node:
        """Reads a ratio such as 1:2, or a time of the day such as 1:05."""
        parts = [self.sets()]
        while self.text == ":" and not self.builder:
            self.at += 1
            parts.append(self.sets())
        padded = any(part.op == "num" and part.args for part in parts[1:])
        return Node("ratio", tuple(parts), padded) if len(parts) > 1 else parts[0]

    def sets(self) -> Node:
        """Reads unions, intersections and differences of sets, from left to right."""
        node = self.sum()
        while self.kind == "cmd" and self.text in SETS:
            op = SETS[self.take().text]
            node = Node(op, (node, self.sum()))
        return node

    def sum(self) -> Node:
        """Reads a sum."""
        if self.text in ("pm", "mp") and self.kind == "cmd":
            sign = self.take().text
            node = Node(sign, (number(0), self.term()))
        else:
            node = self._signed()
        terms = [node]
        while True:
            if self.kind == "op" and self.text in ("+", "-"):
                negative = self.take().text == "-"
                if self.kind == "op" and self.text == "+":
                    raise Undecided("two signs in a row")
                term = self._signed() if self.text == "-" else self.term()
                terms.append(negated(term) if negative else term)
            elif self.kind == "cmd" and self.text in ("pm", "mp"):
                sign = self.take().text
                terms = [Node(sign, (sum_of(terms), self.term()))]
            else:
                return sum_of(terms)

    def _signed(self) -> Node:
        if self.kind == "op" and self.text in ("+", "-"):
            sign = self.take().text
            if self.kind == "op" and self.text in ("+", "-"):
                raise Undecided("two signs in a row")
            return negated(self.term()) if sign == "-" else self.term()
        return self.term()

    def term(self) -> Node:
        """Reads a product, a quotient, or a mixed number, with its unit."""
        node, last = self.power(), self.at - 1
        while True:
            if self.text in TIMES and self.kind in ("op", "cmd"):
                self.at += 1
                node = product(node, self._factor())
            elif self._letter_for_times():
                self.at += 1
                node = product(node, self.power())
            elif self.text in ("/", "div") and self.kind in ("op", "cmd"):
                if self.ahead.kind == "text":
                    self.at += 1
                    node = Node("unit", (node,), "/" + self.unit())
                else:
                    node = self._quotient(node)
            elif self.text in ("bmod", "mod") and self.kind == "cmd":
                self.at += 1
                node = Node("mod", (node, self.power()))
            elif self.text in ("%", r"\%") and self.kind in ("op", "cmd"):
                self.at += 1
                node = Node("percent", (node,))
            elif self.kind == "text":
                node = self._unit(node)
            elif self.starts_factor():
                node = self._juxtaposed(node, last)
            else:
                return node
            last = self.at - 1

    def _unit(self, node: Node) -> Node:
        if node.op == "text":
            return Node("text", (), f"{node.value} {self.take().text}")
        word = self.text.lower().strip(" .")
        if word in ("percent", "%", r"\%", "percentage", "per cent", "pct", "percents"):
            self.at += 1
            return Node("percent", (node,))
        if word in ("degrees", "degree", "deg"):
            self.at += 1
            return Node("degree", (node,))
        return Node("unit", (node,), self.unit())

    def _juxtaposed(self, node: Node, last: int) -> Node:
        """Reads the next factor of a product without a sign, or the fraction of a mixed number."""
        before = self.tokens[last]
        after = self.tokens[self.at]
        if node.op == "either" and node.args[0].op == "num" and after.text.endswith("frac"):
            node = node.args[0]  # 1,234\frac12
        plain = before.kind == "num" and before.text.replace(",", "").isdigit()
        if before.kind == "num" and after.kind == "num":
            if plain and after.text.isdigit() and self.ahead.text == "/":
                above, below = self.take(), (self.take(), self.take())[1]
                proper = below.kind == "num" and below.text.isdigit()
                if proper and 0 < int(above.text) < int(below.text) and not self.text == "^":
                    return self._mixed(node, Fraction(int(above.text), int(below.text)))
            raise Undecided("two numbers side by side")
        factor = self.power()
        degrees = factor.op == "degree"
        ratio = ratio_of(factor.args[0] if degrees else factor)
        if plain and node.op != "div" and after.text.endswith("frac") and ratio is not None:
            if not 0 < ratio < 1:
                raise Undecided("a mixed number, or a product")
            mixed = self._mixed(node, ratio)
            return Node("degree", (mixed,)) if degrees else mixed
        if node.op == "text" or (node.op == "mul" and node.args[-1].op == "text"):
            raise Undecided(f"prose: {node}")
        return product(node, factor)

    @staticmethod
    def _mixed(node: Node, ratio: Fraction) -> Node:
        if node.op != "num":
            raise Undecided("a mixed number within a product")
        return number(node.value + ratio)

    def _factor(self) -> Node:
        """A factor behind a sign of multiplication may have a sign of its own."""
        if self.text == "-" and self.kind == "op":
            self.at += 1
            return negated(self.power())
        return self.power()

    def _quotient(self, node: Node) -> Node:
        self.at += 1
        below = self._factor()
        if self.starts_factor() and not self.tokens[self.at].spaced:
            self.slashed = True
            while self.tight and self.starts_factor():
                below = product(below, self.power())
        return Node("div", (node, below))

    def unit(self) -> str:
        r"""Reads a unit with its powers: `\text{m}/\text{s}^2`."""
        parts = [self.take().text]
        while True:
            if self.text == "^" and self.kind == "op":
                self.at += 1
                power = self.exponent()
                parts.append(f"^{power}")
            elif self.text == "/" and self.ahead.kind in ("text", "sym"):
                self.at += 1
                parts.append("/" + self.take().text)
            elif self.kind == "text":
                parts.append(" " + self.take().text)
            else:
                return "".join(parts)

    def _letter_for_times(self) -> bool:
        """Whether an x stands for the sign of multiplication: 3 x 4, 1.5x10^3."""
        if self.kind != "sym" or self.text not in "xX" or self.ahead.kind != "num":
            return False
        if self.at == 0 or self.tokens[self.at - 1].kind != "num":
            return False
        powers = self.ahead.text == "10" and self.tokens[self.at + 2 :][:1]
        spaced = self.tokens[self.at].spaced and self.ahead.spaced
        return bool(spaced or (powers and powers[0].text == "^"))
