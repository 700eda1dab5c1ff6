"""Read the factors of an answer: numbers, symbols, functions, with exponents and the like."""

from __future__ import annotations

from ctpo.grading.reading.commands import ACCENTS, CONSTANTS, FENCES, OPENING, Commands
from ctpo.grading.reading.tokens import GREEK
from ctpo.grading.reading.tree import Node, Undecided, number

MAX_DEPTH = 40

_STARTS = frozenset(
    "frac dfrac tfrac cfrac nicefrac sfrac sqrt binom dbinom tbinom perm emptyset varnothing { "
    "lbrace sum prod int lim mathbb begin prime".split()
)
_SCALES = {"C": "degc", "F": "degf", "K": "kelvin"}
# A name before parentheses: f(x) is no product, and x(x+1) is one.
_APPLIED = frozenset("fghFGHPWLpqQTuvCA")


class Primary(Commands):
    """Numbers, symbols, functions and brackets."""

    def starts_factor(self) -> bool:
        """Whether a factor of a product without a sign begins here."""
        kind, text = self.kind, self.text
        if kind in ("num", "sym", "func", "base"):
            return True
        if kind == "op":
            bar = text == "|" and not self.bars and not self.builder
            return text in ("(", "{") or bar
        return kind == "cmd" and (
            text in _STARTS
            or text in CONSTANTS
            or text in GREEK
            or text in FENCES
            or text in ACCENTS
        )

    def power(self) -> Node:
        """Reads a primary with its exponent, factorials, primes and degrees."""
        start = self.at
        node = self.primary()
        raised = False
        while True:
            if self.text == "^" and self.kind == "op":
                if raised:
                    raise Undecided("two exponents in a row")
                self.at += 1
                node, raised = self._raised(node), True
            elif self.kind == "op" and self.text in ("!", "!!"):
                double = self.take().text == "!!"
                if self.text in ("!", "!!") and self.kind == "op":
                    raise Undecided("more than two exclamation marks")
                node = Node("call", (node,), "factorial2" if double else "factorial")
            elif self.text == "degree" and self.kind == "cmd":
                self.at += 1
                scale = self.text if self.kind in ("text", "sym") and start + 1 < self.at else ""
                if scale in _SCALES:
                    self.at += 1
                    node = Node("unit", (node,), _SCALES[scale])
                else:
                    node = Node("degree", (node,))
            elif self.text in ("'", "prime"):
                if node.op not in ("sym", "call"):
                    raise Undecided("a prime behind what is no name")
                self.at += 1
                node = Node(node.op, node.args, node.value + "'")
            else:
                return node

    def _raised(self, node: Node) -> Node:
        if self.kind == "cmd" and self.text in ("top", "intercal"):
            self.at += 1
            return Node("transpose", (node,))
        if self.text == "prime" or self.text == "'":
            self.at += 1
            if node.op != "sym":
                raise Undecided("a prime behind what is no name")
            return Node("sym", (), node.value + "'")
        if self.text == "{" and self.ahead.text == "prime":
            self.at += 1
            while self.text == "prime":
                self.at += 1
                if node.op != "sym":
                    raise Undecided("a prime behind what is no name")
                node = Node("sym", (), node.value + "'")
            self.expect("}")
            return node
        around = [token.text for token in self.tokens[self.at : self.at + 5]]
        numbered = node.op in ("sym", "call") and node.value not in CONSTANTS.values()
        if numbered and around[:2] == ["{", "("] and around[3:] == [")", "}"]:
            raise Undecided("the number of a derivative, or an exponent")
        exponent = self.exponent()
        if node.op == "matrix" and exponent in (Node("sym", (), "T"), Node("sym", (), "t")):
            return Node("transpose", (node,))
        inverse = exponent in (Node("neg", (number(1),)), number(-1))
        if inverse and node.op == "sym" and node.value in _APPLIED and self.text == "(":
            return Node("call", (self.bracketed(),), node.value + "⁻")
        return Node("pow", (node, exponent))

    def exponent(self) -> Node:
        """Reads what stands behind `^`: in braces, or one thing with perhaps a sign."""
        if self.text in ("-", "+") and self.kind == "op":
            negative = self.take().text == "-"
            inner = self.primary()
            return Node("neg", (inner,)) if negative else inner
        return self.primary()

    def primary(self) -> Node:
        """Reads one thing."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Undecided("nested too deeply")
        try:
            return self._primary()
        finally:
            self.depth -= 1

    def _primary(self) -> Node:
        kind, text = self.kind, self.text
        if kind == "num":
            return self._number()
        if kind == "base":
            return self._base()
        if kind == "sym":
            return self._symbol()
        if kind == "func":
            return self._function()
        if kind == "text":
            return self._words()
        if kind == "op" and text == "{":
            return self.group()
        if kind == "op" and text == "|":
            return self._between_bars()
        if text in OPENING and kind in ("op", "cmd"):
            return self.bracketed()
        if kind == "cmd":
            return self.command()
        raise Undecided(f"{text!r} is not understood there" if text else "it breaks off")

    def _number(self) -> Node:
        token = self.take()
        assert token.value is not None
        if token.grouped:
            apart = Node("list", tuple(map(number, token.grouped)), ",")
            return Node("either", (number(token.value), apart))
        # As written, for 0,05 and 007: how many digits there are.
        zeros = token.text.startswith("0") and len(token.text) > 1 and token.text.isdigit()
        written = (Node("text", (), token.text),) if zeros else ()
        return Node("num", written, token.value) if zeros else number(token.value)

    def _base(self) -> Node:
        digits, _, base = self.take().text.rpartition("_")
        words = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
                 "twelve")  # fmt: skip
        named = {word: i for i, word in enumerate(words, 2)} | {"sixteen": 16, "hex": 16}
        value = int(base) if base.isdigit() else named.get(base.lower(), 0)
        if not 2 <= value <= 36 or any(int(digit, 36) >= value for digit in digits):
            raise Undecided(f"no number in base {base}")
        return Node("base", (), (digits.lstrip("0") or "0", value))

    def _words(self) -> Node:
        return Node("text", (), self.take().text)

    def _symbol(self) -> Node:
        name = self.take().text
        if self.text == "_" and self.kind == "op":
            return Node("sym", (), f"{name}_{self.subscript()}")
        if name in CONSTANTS:
            return Node("sym", (), CONSTANTS[name])
        return self._applied(name)

    def _applied(self, name: str) -> Node:
        """Reads f(x), f'(x) and P(5,2): a name before parentheses with little in them."""
        primes = ""
        at = self.at
        while self.text == "'" and self.kind == "op":
            primes += self.take().text
        if self.text == "(" and self.kind == "op" and name in _APPLIED:
            inside = self.bracketed()
            simple = inside.op in ("sym", "num") or inside.op in (
                "tuple",
                "union",
                "inter",
                "either",
            )
            if name in "CA":
                simple = inside.op == "tuple" and all(arg.op == "num" for arg in inside.args)
            if name == "P" or simple:
                inside = inside.args[0] if inside.op == "either" else inside
                args = inside.args if inside.op == "tuple" else (inside,)
                return Node("call", args, name + primes)
        self.at = at
        return Node("sym", (), name)

    def _function(self) -> Node:
        name = self.take().text
        base: Node | None = None
        exponent: Node | None = None
        while self.kind == "op" and self.text in ("^", "_"):
            if self.take().text == "^":
                exponent = self.exponent()
            else:
                base = self.argument()
        inner = self._operand()
        if name == "log" and base is not None:
            node = Node("call", (inner, base), "log")
        elif base is not None:
            raise Undecided(f"an index of {name}")
        elif name == "lg":
            node = Node("call", (inner, number(10)), "log")
        else:
            if inner.op == "tuple" and inner.value != "()":
                raise Undecided("brackets that do not match")
            args = inner.args if inner.op in ("tuple", "set", "list") else (inner,)
            node = Node("call", args, name)
        if exponent is None:
            return node
        if exponent in (Node("neg", (number(1),)), number(-1)):
            if name in ("sin", "cos", "tan", "cot", "sec", "csc"):
                return Node("call", (inner,), f"arc{name}")
            raise Undecided(f"the inverse of {name}")
        return Node("pow", (node, exponent))

    def _operand(self) -> Node:
        r"""Reads what a function is applied to: `(x+1)`, or a product such as `2\pi x`."""
        if self.kind == "op" and self.text in ("(", "{", "[", "|"):
            group = self.group() if self.text == "{" else self.primary()
            if self.text == "^" and self.kind == "op":
                raise Undecided("an exponent behind a function's parentheses")
            return group
        negative = self.text == "-" and self.kind == "op"
        if negative:
            self.at += 1
        if not self.starts_factor() or self.kind == "func":
            if self.kind == "func":
                return self._function()
            raise Undecided("a function of nothing")
        factors = [self.power()]
        while self.starts_factor() and self.kind != "func" and self.text not in ("(", "[", "|"):
            if self.kind == "num":
                raise Undecided("two numbers side by side")
            factors.append(self.power())
        node = factors[0] if len(factors) == 1 else Node("mul", tuple(factors))
        if self.kind == "op" and self.text == "/":
            self.slashed = True
            if self.tight:
                self.at += 1
                node = Node("div", (node, self.power()))
        return Node("neg", (node,)) if negative else node

    def _between_bars(self) -> Node:
        self.expect("|")
        if self.text == "|":
            raise Undecided("a norm")
        self.bars += 1
        node = self.sum()
        self.expect("|")
        self.bars -= 1
        return Node("call", (node,), "abs")
