r"""Read LaTeX's commands with their arguments: `\frac`, `\sqrt`, `\{`, `\sum`, matrices."""

from __future__ import annotations

from ctpo.grading.reading.regions import is_constant
from ctpo.grading.reading.tables import Tables
from ctpo.grading.reading.tokens import GREEK, Token
from ctpo.grading.reading.tree import Node, Undecided, number

CONSTANTS = {"pi": "pi", "e": "e", "i": "i", "imath": "i", "jmath": "j", "infty": "oo"}
_NUMBER_SETS = {"R": "reals", "Z": "integers", "N": "naturals", "Q": "rationals", "C": "complexes"}
ACCENTS = frozenset(
    "bar overline hat widehat tilde widetilde vec overrightarrow dot ddot angle measuredangle "
    "triangle mathcal mathscr mathfrak overarc overleftrightarrow".split()
)
OPENING = {"(": "(", "[": "[", "]": "]", "lbrack": "["}
FENCES = {"lfloor": "rfloor", "lceil": "rceil", "langle": "rangle", "lvert": "rvert"}
_FENCED = {"lfloor": "floor", "lceil": "ceil", "langle": "angle", "lvert": "abs"}
_CHOSEN = dict.fromkeys(("binom", "dbinom", "tbinom"), "binomial") | {"perm": "perm"}
_FRACTIONS = frozenset("frac dfrac tfrac cfrac nicefrac sfrac".split())


class Commands(Tables):
    """What begins with a backslash."""

    def command(self) -> Node:
        """Reads a command that is taken for a value."""
        name = self.take().text
        if name in _FRACTIONS:
            return Node("div", (self.argument(more=True), self.argument()))
        if name in _CHOSEN:
            return Node("call", (self.argument(more=True), self.argument()), _CHOSEN[name])
        if name == "sqrt":
            return self._root()
        if name in ("{", "lbrace"):
            return self._set()
        if name in ("emptyset", "varnothing"):
            return Node("set")
        if name == "mathbb":
            letter = self.name_in_braces() if self.text == "{" else self.take().text
            if letter not in _NUMBER_SETS or self.text in ("^", "_"):
                raise Undecided(f"the set {letter}")
            return Node("sym", (), _NUMBER_SETS[letter])
        if name in FENCES:
            bars, self.bars = self.bars, 0
            node = self.answer()
            self.bars = bars
            self.expect(FENCES[name], ">")
            if name == "langle":
                if node.op == "either":  # commas separate here, as in parentheses
                    node = node.args[0 if node.args[0].op == "list" else 1]
                return Node("angle", node.args if node.op == "list" else (node,))
            return Node("call", (node,), _FENCED[name])
        if name in ("sum", "prod", "int", "lim"):
            return self._limits(name)
        if name == "begin":
            return self.environment()
        if name in ("angle", "measuredangle", "triangle") and self.kind == "sym":
            letters = ""
            while self.kind == "sym":
                letters += self.take().text
            return Node("sym", (), f"{name} {letters}")
        if name in ACCENTS:
            inner = self.primary() if self.kind in ("sym", "cmd") else self._accented()
            if name in ("bar", "overline") and is_constant(inner) and inner.op == "add":
                return Node("call", (inner,), "conj")
            return Node("sym", (), f"{name} {inner}")
        if name in CONSTANTS:
            return Node("sym", (), CONSTANTS[name])
        if name == "Gamma" and self.text == "(":
            return Node("call", (self.bracketed(),), name)
        if name in GREEK:
            greek = name.removeprefix("var") if name != "varepsilon" else "epsilon"
            if self.text == "_" and self.kind == "op":
                greek += f"_{self.subscript()}"
            return Node("sym", (), greek)
        raise Undecided(rf"\{name} is not understood")

    def _accented(self) -> Node:
        node = self.group() if self.text == "{" else self.primary()
        if node.op == "mul" and all(arg.op == "sym" for arg in node.args):
            return Node("sym", (), "".join(arg.value for arg in node.args))
        return node

    def _root(self) -> Node:
        if self.text == "[" and self.kind == "op":
            self.at += 1
            degree = self.sum()
            self.expect("]")
            bracket = self.kind == "op" and self.text == "("
            return Node("root", (self.bracketed() if bracket else self.argument(), degree))
        if self.kind == "op" and self.text == "(":  # 4\sqrt(2) is written and meant as well
            return Node("root", (self.bracketed(), number(2)))
        return Node("root", (self.argument(), number(2)))

    def _set(self) -> Node:
        bars, self.bars = self.bars, 0
        builder, self.builder = self.builder, True
        if self.text in ("}", "rbrace"):
            self.at += 1
            self.bars, self.builder = bars, builder
            return Node("set")
        node = self.answer()
        condition = None
        if self.text in ("|", "mid", ":"):
            self.at += 1
            self.builder = False
            condition = self.answer()
        self.bars, self.builder = bars, builder
        self.expect("}", "rbrace")
        if condition is not None:
            element = node.args[0] if node.op == "rel" and node.value == ("in",) else node
            told = element in condition.walk()
            whole = node.op != "rel" or node.args[1] == Node("sym", (), "reals")
            if element.op != "sym" or not whole or not told or condition.op != "rel":
                raise Undecided("a set by its condition")
            return condition
        if node.op == "either":
            if node.args[0].op == "list":
                return Node("set", node.args[0].args)
            return Node("either", (Node("set", node.args[1].args), Node("set", node.args[:1])))
        if node.op == "rel":
            raise Undecided("relations in a set")
        return Node("set", node.args if node.op == "list" else (node,))

    def _limits(self, name: str) -> Node:
        lower = upper = None
        while self.kind == "op" and self.text in ("_", "^"):
            if self.take().text == "_":
                lower = self._limit(name)
            else:
                upper = self.exponent()
        if lower is None or (upper is None) != (name == "lim"):
            raise Undecided(f"a {name} without its limits")
        if name == "int":
            return self._integral(lower, upper)
        variable, start = lower.args
        if variable.op != "sym":
            raise Undecided(f"a {name} over what is no name")
        # The index is a name of its own: i is no imaginary unit there.
        index = Node("sym", (), f"index {self.depth}")
        body = self.term().change(lambda node: index if node == variable else node)
        return Node(name, (body, start) if upper is None else (body, start, upper), index.value)

    def _limit(self, name: str) -> Node:
        if name == "int":
            return self.exponent()
        if name == "lim":
            self.expect("{")
            variable = self.primary()
            self.expect("to", "rightarrow")
            node = Node("rel", (variable, self.sum()), ("to",))
            self.expect("}")
            return node
        node = self.group()
        if node.op != "rel" or node.value != ("=",):
            raise Undecided(f"a {name} over something else than a range")
        return node

    def _integral(self, lower: Node, upper: Node | None) -> Node:
        """The integrand goes up to the last `d` with a name behind it."""
        assert upper is not None
        ends = [
            at
            for at in range(self.at, len(self.tokens) - 1)
            if (self.tokens[at].kind, self.tokens[at].text) == ("sym", "d")
            and self.tokens[at + 1].kind == "sym"
        ]
        if not ends:
            raise Undecided("an integral without its variable")
        end = ends[0]
        variable, rest = self.tokens[end + 1].text, self.tokens[end + 2 :]
        inner, self.tokens = self.tokens, self.tokens[:end]
        body = self.sum() if self.at < end else number(1)
        if self.at < end:
            raise Undecided("an integral that is not understood")
        self.tokens, self.at = inner, end + 2
        assert rest == self.tokens[self.at :]
        index = Node("sym", (), f"index {self.depth}")
        name = Node("sym", (), CONSTANTS.get(variable, variable))
        body = body.change(lambda node: index if node == name else node)
        return Node("int", (body, lower, upper), index.value)

    def argument(self, more: bool = False) -> Node:
        r"""Reads a command's argument: in braces, or one digit, letter or command.

        Args:
            more: Whether another argument follows, which may be the next digit.
        """
        if self.kind == "num" and not self.text.startswith("."):
            token = self.tokens[self.at]
            digits = token.text.replace(",", "")
            if len(digits) == 1:
                return self.primary()
            if not digits.isdigit() or self.text != digits or len(digits) > 1 + more:
                raise Undecided("an argument without braces")
            # \frac12: the first digit alone.
            rest = digits[1:]
            self.tokens[self.at] = Token("num", rest, value=number(int(rest)).value)
            return number(int(digits[0]))
        if self.text in ("frac", "sqrt", "{") or self.kind in ("sym", "cmd"):
            return self.primary()
        raise Undecided(f"{self.text!r} is no argument")

    def subscript(self) -> str:
        """Reads `_1` or `_{n+1}` and returns its text without spaces and braces."""
        self.expect("_")
        if self.text != "{":
            token = self.take()
            if token.kind == "num" and len(token.text) > 1:
                raise Undecided("a subscript of several digits without braces")
            return token.text
        depth = 0
        parts: list[str] = []
        while True:
            token = self.take()
            if token.kind == "op":
                depth += {"{": 1, "}": -1}.get(token.text, 0)
            if not depth:
                return "".join(parts)
            parts.append(token.text if token.text not in "{}" else "")

    def group(self) -> Node:
        """Reads braces."""
        self.expect("{")
        if self.text == "}":
            self.at += 1
            return self.power()  # {}^5..., an empty group to hold an index
        bars, self.bars = self.bars, 0
        node = self.whole()
        self.expect("}")
        self.bars = bars
        return node

    def whole(self) -> Node:
        r"""Reads all that stands in braces: an answer, `n \choose k` or `a \over b`."""
        node = self.answer()
        if self.kind == "cmd" and self.text in ("choose", "over"):
            op = {"choose": "call", "over": "div"}[self.take().text]
            node = Node(op, (node, self.answer()), "binomial" if op == "call" else None)
        return node

    def bracketed(self) -> Node:
        """Reads parentheses: a pair, an interval, or one thing."""
        opening = OPENING[self.take().text]
        bars, self.bars = self.bars, 0
        builder, self.builder = self.builder, False
        node = self.answer()
        self.bars, self.builder = bars, builder
        closing = self.expect(")", "]", "[", "rbrack").replace("rbrack", "]")
        raw = opening + closing
        if opening == "]" or closing == "[":  # as the French write open ends
            opening = {"]": "("}.get(opening, opening)
            closing = {"[": ")"}.get(closing, closing)
        brackets = opening + closing
        if node.op == "either":
            joined, apart = node.args
            if joined.op == "list":  # no decimal comma in brackets
                return Node("tuple", joined.args, brackets)
            return Node("either", (Node("tuple", apart.args, brackets), joined))
        if node.op == "list":
            if node.value != ",":
                raise Undecided("words within brackets")
            return Node("tuple", node.args, brackets)
        if raw not in ("()", "[]"):
            raise Undecided("brackets that do not match")
        return node
