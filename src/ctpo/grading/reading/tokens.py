"""Cut LaTeX, and what people write in its place, into tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from ctpo.grading.reading.tree import Undecided

FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth arcsinh "
    "arccosh arctanh log ln lg exp min max gcd lcm det cis arg Re Im sgn sign".split()
)
_ALIASES = {
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "tg": "tan", "ctg": "cot",
    "arctg": "arctan", "cosec": "csc", "sen": "sin", "arcsen": "arcsin", "Arcsin": "arcsin",
    "Arccos": "arccos", "Arctan": "arctan", "arcctg": "arccot",
    "inf": "infty", "infinity": "infty", "Infinity": "infty", "infinite": "infty",
    "Inf": "infty", "oo": "infty", "sqrt": "sqrt", "pi": "pi", "infty": "infty",
}  # fmt: skip
_HYPERBOLIC = {"sh": "sinh", "ch": "cosh", "cth": "coth"}  # upright only
_CONNECTIVES = {"and": "and", "or": "or", "und": "and", "et": "and", "ou": "or"}
GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi "
    "rho sigma tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi "
    "Omega ell".split()
)
_TEXT = frozenset(
    "text textbf textit textrm textnormal textsf texttt textup mbox hbox emph".split()
)
_FONTS = frozenset(
    "mathrm mathbf mathit mathsf mathtt boldsymbol bm operatorname mathnormal underline "
    "textcolor boxed fbox ensuremath pmb".split()
)
_SHORT_UNITS = frozenset(
    "cm mm km dm nm kg mg ml mL ft lb lbs oz hr hrs Hz kHz MHz kW kJ eV Pa kPa min sec mph rad deg "
    "yd mi in pct men kmh kph rpm atm mol cal USD EUR GBP yen won cup CAD AUD GBP INR JPY "
    "cups ton tons boys pens eggs cats dogs st nd rd th".split()
)
_SHORT_WORDS = frozenset(
    "yes no true false odd even none red day days sun mon tue wed thu fri sat dne all any "
    "per forty".split()
)
MAX_DIGITS = 4000
MAX_EXPONENT = 1000

_REPEATING = re.compile(
    r"([0-9]*)\.([0-9]*)(?:\\(?:overline|bar)\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))|(?:(?<=\.)|(?<=^0\.[0-9])|(?<=^0\.[0-9]{2}))\(([0-9]+)\)"
    r"|\\dot\s*\{?([0-9])\}?(?:([0-9]*)\\dot\s*\{?([0-9])\}?)?)"
)
_BASED = re.compile(
    r"([0-9](?:[0-9A-F,]| (?=[0-9]{3}))*)\s*_\s*(?:\{\s*(?:\\text\s*\{)?\s*\(?\s*"
    r"(?:base[\s-]*\}?)?\s*(\w+)\s*\)?\s*\}?\s*\}|([0-9]+))(?![\w^])"
)
_PREFIXED = re.compile(r"0(?:[xX][0-9A-Fa-f]+|[bB][01]+|[oO][0-7]+)(?!\w)")
_HEX_LETTERS = re.compile(r"([A-F][0-9A-F]+)\s*_\s*(?:\{\s*16\s*\}|16)(?!\w)")
# 1.234,5 and 1.234.567
_EUROPEAN = re.compile(r"[1-9][0-9]{0,2}(?:(?:\.[0-9]{3})+,[0-9]+|(?:\.[0-9]{3}){2,})(?![0-9,.])")
_NUMBER = re.compile(
    r"(?P<grouped>[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9]))(?:\.[0-9]+)?"
    r"|[1-9][0-9]?(?=[0-9,]*,0)(?:,[0-9]{2})+,[0-9]{3}(?![0-9,])"  # 1,00,000, as in India
    r"|[1-9][0-9]{0,2}(?: [0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
)
_POWER_OF_TEN = re.compile(r"[eE]([+-]?[0-9]+)(?![0-9.])")
_COMMAND = re.compile(r"\\([A-Za-z]+|.)\s*", re.DOTALL)
_PROSE = re.compile(r"[A-Za-z]+(?:['.-]?[A-Za-z]+)*\.?(?: [A-Za-z]+(?:['.-]?[A-Za-z]+)*\.?)*")
_AREA = re.compile(r"(?:sq|cu)\.? ?(?:ft|in|cm|m|km|mm|mi|yd)\.?")
_LETTERS = re.compile(r"[A-Za-z]+")
_SIGN = re.compile(r"\*\*|<=|>=|!=|!!|&|[-+*/^_=<>(){}\[\]|,;:!'%]")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)


@dataclass(slots=True)
class Token:
    """A piece of an answer.

    Attributes:
        kind: `num`, `sym`, `cmd`, `func`, `text`, `op`, `sep`, `base` or `end`.
        text: What it says; of `sep` "and" or "or".
        spaced: Whether white space stands before it.
        value: The number.
        grouped: The parts of a number written with commas, which may also be several numbers.
    """

    kind: str
    text: str
    spaced: bool = False
    value: Fraction | None = None
    grouped: tuple[Fraction | int, ...] = ()


def is_word(run: str) -> bool:
    """Whether letters in a row are a word, and no product of variables."""
    low = run.lower()
    if low in _SHORT_WORDS:
        return True
    if len(run) < 4 or not set(low) & set("aeiouy") or run in GREEK:
        return False
    # abcd, and one with capitals inside, are products.
    return not all(a < b for a, b in zip(low, low[1:], strict=False)) and run[1:] in (
        low[1:],
        low[1:].upper(),
    )


def cut(text: str) -> list[Token]:
    """Cuts an answer into tokens; raises `Undecided` for a sign that nobody knows."""
    tokens: list[Token] = []
    at, spaced = 0, False
    while at < len(text):
        if text[at] == " ":
            at, spaced = at + 1, True
            continue
        before = len(tokens)
        at = _one(text, at, tokens)
        if len(tokens) > before:
            tokens[before].spaced = spaced
        spaced = False
    return tokens


def _one(text: str, at: int, tokens: list[Token]) -> int:
    """Appends the tokens that begin at a place and returns where the next begin."""
    char = text[at]
    if char.isdigit() or char == ".":
        return _digits(text, at, tokens)
    if char == "\\":
        return _command(text, at, tokens)
    if found := _HEX_LETTERS.match(text, at):
        tokens.append(Token("base", f"{found[1]}_16"))
        return found.end()
    if found := _PROSE.match(text, at):
        return _letters(text, found, tokens)
    if found := _SIGN.match(text, at):
        tokens.append(Token("op", {"**": "^"}.get(found[0], found[0])))
        return found.end()
    raise Undecided(f"{char!r} is not understood")


def _digits(text: str, at: int, tokens: list[Token]) -> int:
    if found := _REPEATING.match(text, at):
        whole, before, line, digit, round_, first, middle, last = found.groups()
        again = line or digit or round_ or first + (middle or "") + (last or "")
        period = Fraction(int(again), 10 ** len(again) - 1)
        value = (int(whole + before or 0) + period) / 10 ** len(before)
        tokens.append(Token("num", found[0], value=value))
        return found.end()
    if found := _PREFIXED.match(text, at):
        tokens.append(Token("num", found[0], value=Fraction(int(found[0], 0))))
        return found.end()
    if found := _EUROPEAN.match(text, at):
        value = Fraction(found[0].replace(".", "").replace(",", "."))
        alone = found[0].count(".") == 1
        parts = tuple(map(Fraction, found[0].split(","))) if alone else ()
        tokens.append(Token("num", found[0], value=value, grouped=parts))
        return found.end()
    found = _BASED.match(text, at)
    digits = re.sub("[, ]", "", found[1]) if found else ""
    # 5C_2 has a name in it, and 5C_{16} may be a number.
    if found and (digits.isdigit() or (found[2] or found[3]) not in map(str, range(2, 11))):
        tokens.append(Token("base", f"{digits}_{found[2] or found[3]}"))
        return found.end()
    found = _NUMBER.match(text, at)
    if not found:
        raise Undecided(f"{text[at : at + 9]!r} is not understood")
    if len(found[0]) > MAX_DIGITS:
        raise Undecided(f"a number of more than {MAX_DIGITS} digits")
    value, end = Fraction(re.sub("[, ]", "", found[0]).rstrip(".") or 0), found.end()
    if power := _POWER_OF_TEN.match(text, end):
        if abs(int(power[1][:9])) > MAX_EXPONENT:
            raise Undecided("a power of ten too large to read")
        value, end = value * Fraction(10) ** int(power[1]), power.end()
    plain = found["grouped"] == text[at:end]
    parts = tuple(map(Fraction, found[0].split(","))) if plain else ()
    # 2,000 is no two numbers: nobody writes 000.
    if plain and any(part.startswith("0") for part in found[0].split(",")):
        parts = ()
    tokens.append(Token("num", text[at:end], value=value, grouped=parts))
    return end


def _command(text: str, at: int, tokens: list[Token]) -> int:
    found = _COMMAND.match(text, at)
    if not found:
        raise Undecided("a backslash at the end")
    name, end = found[1], found.end()
    if name in _TEXT or name in _FONTS:
        inside, end = _argument(text, end)
        upright = name in _TEXT or name in ("mathrm", "mathsf", "operatorname")
        if upright and _is_unit(inside, tokens, text[end : end + 1]):
            tokens.append(Token("text", inside.replace("\\mu", "u").replace("\\", "").strip()))
        else:
            _styled(inside, tokens, name in _TEXT)
    elif name in FUNCTIONS or name in _ALIASES:
        _named(name, tokens)
    elif name == "$":
        raise Undecided("a money sign within a formula")
    else:
        tokens.append(Token("cmd", name))
    return end


def _argument(text: str, at: int) -> tuple[str, int]:
    """Returns what stands in the braces at a place, or the one sign there, and where it ends."""
    if at >= len(text):
        raise Undecided("a command without its argument")
    if text[at] != "{":
        found = _COMMAND.match(text, at) if text[at] == "\\" else None
        end = found.end() if found else at + 1
        return text[at:end], end
    depth = 0
    for found in _BRACE.finditer(text, at):
        depth += {"{": 1, "}": -1}.get(found[0], 0)
        if not depth:
            return text[at + 1 : found.start()], found.end()
    raise Undecided("a brace is left open")


_UNIT = re.compile(
    r"\s*(?:\\(?:mu|Omega)\s*)?[A-Za-z]{1,3}(?:\s*\^\s*\{?-?\d\}?)?"
    r"(?:\s*(?:/|\\cdot)?\s*[A-Za-z]{1,3}(?:\s*\^\s*\{?-?\d\}?)?)*\s*"
)


def _is_unit(inside: str, tokens: list[Token], after: str) -> bool:
    """Whether upright letters behind a number are a unit, such as m and m s^{-1}."""
    number = bool(tokens) and (tokens[-1].kind == "num" or tokens[-1].text in ("}", ")"))
    known = inside.strip() in {*FUNCTIONS, *_ALIASES, *_CONNECTIVES, "e", "i", "d", "T"}
    return number and after != "_" and not known and bool(_UNIT.fullmatch(inside))


def _styled(inside: str, tokens: list[Token], text: bool) -> None:
    """Appends what stands in a font: letters and formulas as such, words as text."""
    inside = inside.strip().replace(r"\ ", " ")
    if not inside:
        return
    if inside.lower().strip(" ,") in _CONNECTIVES:
        tokens.append(Token("sep", _CONNECTIVES[inside.lower().strip(" ,")]))
    elif inside in FUNCTIONS or inside in _ALIASES or inside in _HYPERBOLIC:
        _named(_HYPERBOLIC.get(inside, inside), tokens)
    elif text and inside in ("-", "--") and tokens and tokens[-1].kind == "num":
        raise Undecided("a range")
    elif text and re.fullmatch(r"[-+\d.,/ ]+(?:(?:and|or)[-+\d.,/ ]+)+", inside):
        tokens += cut(inside)
    elif re.fullmatch(r"[A-Za-z]", inside):
        tokens.append(Token("sym", inside))
    elif re.fullmatch(r"[A-Z](?:\s*(?:,|,?\s*and)\s*[A-Z])+", inside) or not re.search(
        r"[A-Za-z]{2}", inside
    ):
        tokens += [Token("op", "{"), *cut(inside), Token("op", "}")] if not text else cut(inside)
    elif found := re.match(r"[-+]?[\d.,]+\s+(?=[A-Za-z])", inside):
        tokens += cut(found[0].strip())
        tokens.append(Token("text", inside[found.end() :].strip()))
    elif "\\" in inside and not text and not re.search(r"(?<![\\A-Za-z])[A-Za-z]{2,}", inside):
        tokens += [Token("op", "{"), *cut(inside), Token("op", "}")]
    else:
        tokens.append(Token("text", " ".join(inside.split())))


def _named(name: str, tokens: list[Token]) -> None:
    name = _ALIASES.get(name, name)
    tokens.append(Token("func" if name in FUNCTIONS else "cmd", name))


def _letters(text: str, prose: re.Match[str], tokens: list[Token]) -> int:
    first = _LETTERS.match(text, prose.start())
    assert first is not None
    run = first[0]
    if glued := re.match(r"(and|or)(?=[A-Z])", run):  # x=1orY=2
        tokens.append(Token("sep", glued[0]))
        return first.start() + len(glued[0])
    after_number = bool(tokens) and tokens[-1].kind == "num"
    if run.lower() in _CONNECTIVES and len(run) > 1:
        tokens.append(Token("sep", _CONNECTIVES[run.lower()]))
        return first.end()
    if run in FUNCTIONS or run in _ALIASES:
        _named(run, tokens)
        return first.end()
    if found := re.fullmatch("(sin|cos|tan|cot|log|ln)x", run):
        tokens += [Token("func", found[1]), Token("sym", "x")]
        return first.end()
    words = re.split(r" (?:and|or)\b", prose[0])[0]
    short = words in _SHORT_UNITS or _AREA.fullmatch(words)
    if any(is_word(word) for word in re.split(r"[ '.-]", words)) or (after_number and short):
        tokens.append(Token("text", words))
        return prose.start() + len(words)
    if after_number and run in _SHORT_UNITS:
        tokens.append(Token("text", run))
        return first.end()
    for name in ("sin", "cos", "tan", "cot", "log", "ln"):
        if run.startswith(name) and len(run) == len(name) + 1:
            tokens += [Token("func", name), Token("sym", run[-1])]
            return first.end()
    if run in GREEK:
        tokens.append(Token("cmd", run))
    else:
        tokens += [Token("sym", letter) for letter in run]
    return first.end()
