"""Strip what is only typography: Unicode, dollar signs, spacing commands, fonts, end marks."""

from __future__ import annotations

import ast
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

_GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau "
    "upsilon phi chi psi omega"
).split()
_TABLE = (
    {
        **dict.fromkeys("−–—‐‑﹣－", "-"),
        **dict.fromkeys("·⋅∙•", r"\cdot "),
        **dict.fromkeys("°º˚", r"\degree "),
        **dict.fromkeys("✓✔■□∎▪◻", " "),
        **dict.fromkeys("µ", r"\mu "), **dict.fromkeys("×⨯✕", r"\times "), "∗": "*",
         "÷": r"\div ", "⁄": "/", "∕": "/", "±": r"\pm ", "∓": r"\mp ",
        "∞": r"\infty ", "√": r"\surd ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ",
        "≠": r"\ne ", "≡": r"\equiv ", "∛": r"\surd[3]", "≈": r"\approx ",
        "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
        "∅": r"\emptyset ", "∖": r"\setminus ", "∠": r"\angle ", "∣": "|", "⟨": r"\langle ",
        "⟩": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ",
        "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℚ": r"\mathbb{Q}", "ℕ": r"\mathbb{N}",
        "ℂ": r"\mathbb{C}", "。": ".", "、": ",", "’": "'", "′": "'", "″": "''", "…": r"\ldots ",
        "∶": ":", "≦": r"\le ", "≧": r"\ge ", "∜": r"\surd[4]", "Ø": r"\emptyset ",
        "٫": ".", "٬": ",", "℃": r"\degree C", "℉": r"\degree F", "Å": r"\text{angstrom}",
        "￥": "¥", "¢": " cents ", 
        "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ", "∧": r"\land ", "∨": r"\lor ",
        "ϕ": r"\phi ", "ϵ": r"\epsilon ", "ς": r"\sigma ", "△": r"\triangle ",
    }
)  # fmt: skip
_MARKS = {
    "\u0302": "hat",
    "\u0303": "tilde",
    "\u0304": "bar",
    "\u0305": "overline",
    "\u20d7": "vec",
}
_MARKED = re.compile(f"([A-Za-z0-9])([{''.join(_MARKS)}])")
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉ₙ", "0123456789n")

_CURRENCIES = {
    r"\$": "dollar", r"\mathdollar": "dollar", r"\textdollar": "dollar", "€": "euro",
    r"\euro": "euro", "£": "pound", r"\pounds": "pound", "¥": "yen", r"\yen": "yen",
    "₹": "rupee", "₽": "ruble", "₩": "won", "₺": "lira", "₪": "shekel", "₫": "dong", "₱": "peso",
}  # fmt: skip
_SIGNS = "|".join(re.escape(sign) for sign in _CURRENCIES)
# `(?<!\\)`: in a matrix, `\\` ends a row and the character behind it is not escaped.
_MONEY = re.compile(
    rf"(?:\b(?:US|USD|AU|CA|HK|NZ|[ACRS])\s*)?(?<!\\)(?:\\text\s*\{{\s*({_SIGNS})\s*\}}|({_SIGNS}))"
    r"(?![A-Za-z])"
)
_CODE = re.compile(
    r"^(?:\\(?:text|mathrm)\s*\{\s*)?(USD|EUR|GBP|Rs\.?|INR|CNY|RMB|CAD|AUD)(?:\s*\})?"
    r"(?:\s|~|\\[ ,;])*(?=[\d.])"
)
# A letter alone is a factor where its dollar sign begins a formula.
_BARE_MONEY = re.compile(
    r"^([-+]?)\s*(?:US|USD|AU|CA|HK|NZ|[ACRS](?=\s*\$[^$]*$))\s*\$\s*(?=[\d.])"
)
_DELIMITER = re.compile(r"(?<!\\)\\[()\[\]](?!\d*(?:pt|em|ex))|\$")
_TIGHT = re.compile(r",\s*(?<!\\)\\!\s*|(?<!\\)\\!\s*,")
_NEGATIVE = re.compile(r"(?<!\\)\\!")
_SPACE = re.compile(
    r"(?<!\\)\\(?:[,;:> ]|q?quad\b|hspace\*?\{[^{}]*\}|hfill\b|thinspace\b|enspace\b)|~|\s+"
)
_STYLE = re.compile(
    r"(?<!\\)\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits|left\s*\.|right\s*\.|left|right|middle"
    r"|[bB]igg?[lrm]?|rm|bf|it|tt|sf|large|Large|LARGE|huge|Huge|normalsize|small|boldmath"
    r"|centering|mathstrut|strut|color\s*\{[^{}]*\}|textcolor\s*\{[^{}]*\}"
    r"|h?phantom\s*\{[^{}]*\}|label\s*\{[^{}]*\}|tag\s*\{[^{}]*\}"
    r"|colorbox\s*\{[^{}]*\}|nonumber|notag|therefore)(?![A-Za-z])"
)
_END = re.compile(
    r"(?:[.,;\s]|(?<!\\)\\(?:square|Box|blacksquare|checkmark|qed|qedsymbol|hspace)(?![A-Za-z])"
    r"|\\\\|\\(?:text|mathrm)\s*\{\s*(?:[.,;]|Q\.?E\.?D\.?)?\s*\}|\{\s*\})+$"
)
_DEGREE = re.compile(
    r"(?:\s*\{\})?\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z])|\\(?:text|mathrm)\s*\{\s*o\s*\}"
    r"|\{\s*(?:\\(?:text|mathrm)\s*\{\s*o\s*\}|o)\s*\})"
    r"|(?<=[\d}])\s*\^\s*o(?![A-Za-z])|\\deg(?:ree)?(?![A-Za-z])"
)
_BASE_WORDS = re.compile(
    r"(?<=[0-9A-F])\s*(?:\\text\s*\{)?\s*[(\[]?\s*(?:in\s+)?base[\s-]*"
    r"(?:\}\s*)?(?:\\text\s*\{\s*)?(\w+)\s*[)\]]?\s*\}?\s*$"
)
_TEXT = r"\\(?:text|mathrm)\s*\{\s*"
_UPRIGHT = r"\s*\\(?:text|mathrm)\s*\{\s*[A-Za-z]{1,3}\s*\}(?:\^\{?\d\}?)?\s*"
_FONT = re.compile(r"\\(?:text|mathrm)\s*\{\s*([A-Za-z]+)\s*\}|\s")


def _quotient(found: re.Match[str]) -> str:
    """Writes a fraction of units in one line."""
    above, below = (_FONT.sub(lambda inner: inner[1] or "", part) for part in found.groups())
    return rf"\text{{{above}/{below}}}"


_ANSWER = r"(?:the )?(?:(?:final|correct) )?answer(?: is:?|:)"
_TIME = rf"(?:{_TEXT})?\b([ap])\.?\s?m\b\.?\s*\}}?"
# One spelling for what has many, in this order; first what is in every text that has it.
_REWRITTEN: list[tuple[str, re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    ("", _DEGREE, r"\\degree "),
    ("base", _BASE_WORDS, r"_{\1}"),
    ("_", re.compile(r"^\s*(?:\(|\\overline\s*\{)\s*([0-9A-F]+)\s*[)}]\s*(?=_)"), r"\1"),
    ("_", re.compile(r"(?<=[0-9A-F])_\s*\\(?:text|mathrm)\s*\{\s*(\w+)\s*\}"), r"_{\1}"),
    ("_", re.compile(r"([CAP])\s*\^\s*\{?(\d+)\}?\s*_\s*\{?(\d+)\}?"), r"\1_{\3}^{\2}"),
    ("_", re.compile(r"(?<![\w.])\d{1,3}(?:_\d{3}){2,}(?!\w)"), lambda m: m[0].replace("_", "")),
    ("frac", re.compile(r"^(-?)\{(\d+)\}(?=\s*\\[dt]?frac)"), r"\1\2"),
    ("frac", re.compile(r"^(-?\d+)\s*\{(\\[dt]?frac\s*\{\d+\}\s*\{\d+\})\}$"), r"\1\2"),
    ("[", re.compile(r"\\\\\s*\[[\d.]+\s*(?:pt|ex|em|mm|cm)\]"), r"\\\\ "),
    (
        "mathbb",
        re.compile(r"\\mathbb\s*\{?R\}?\s*(?:\^\s*(?:\+|\{\+\})|_\s*\{\s*>\s*0\s*\})"),
        r"(0,\\infty)",
    ),
    ("mathbb", re.compile(r"\\mathbb\s*\{?R\}?\s*_\s*\{\s*\\geq?\s*0\s*\}"), r"[0,\\infty)"),
    ("U", re.compile(r"(?<=[)\]]) U (?=[(\[])|(?<=\])U(?=[(\[])|(?<=\))U(?=\[)"), r"\\cup "),
    ("{", re.compile(r"(?<![\^_])\{\s*([-+])\s*\}"), r"\1"),
    ("=", re.compile(r"^\s*=\s*(?=\S)"), ""),
    ("/", re.compile(r"\+ ?/ ?-"), r"\\pm "),
    ("colon", re.compile(r"\\colon(?![A-Za-z])"), ":"),
    ("cbrt", re.compile(r"(?<![A-Za-z\\])cbrt(?=\s*\()"), r"\\sqrt[3]"),
    ("", re.compile(r"^\(?(\d+)\s*([CP])\s*(\d+)\)?$"), r"{}^{\1}\2_{\3}"),
    ("not", re.compile(r"\\not\s*="), r"\\ne "),
    (".", re.compile(r"\.(?: ?\.){2,}"), r"\\ldots "),
    ("'", re.compile(r"(?<![\d.'])\d{1,3}(?:'\d{3})+(?![\d'])"), lambda m: m[0].replace("'", "")),
    ("^", re.compile(rf"(?<=\d)\s*\^\s*\{{?\s*(?:{_TEXT})?(st|nd|rd|th)\s*\}}?\s*\}}?$"), r" \1"),
    ("the ", re.compile(r"^the (?=\d)"), ""),
    ("frac", re.compile(rf"\\[dt]?frac\s*\{{({_UPRIGHT})\}}\s*\{{({_UPRIGHT})\}}$"), _quotient),
    (
        "frac",
        re.compile(
            r"(?<=[\d}])\s*\\frac\s*\{\s*([a-z]{1,2})\s*\}\s*\{\s*([a-z](?:\^\{?\d\}?)?)\s*\}$"
        ),
        r" \1/\2",
    ),
    ("{", re.compile(r"(?<=[\d}] )\{\s*([A-Za-z]{1,3})\s*\}$"), r"\1"),
    ("=", re.compile(r"(?<![A-Za-z0-9])([A-Za-z])(\d)(?=\s*=)"), r"\1_\2"),  # x1 = 3
    ("", re.compile(rf"^(\d\d?(?::\d\d)?)\s*{_TIME}$", re.IGNORECASE), r"\1\\text{\2m}"),
    ("", re.compile(rf"(?i)^(?:{_TEXT})?{_ANSWER}\s*(?:\}}|(?=[^{{}}]*$))"), ""),
    ("", re.compile(rf"(?i)^(\\text\s*\{{\s*){_ANSWER}\s*(?=[^{{}}]+\}}$)"), r"\1"),
]
_QUOTED = re.compile(
    r"\*\*(.+)\*\*|`([^`]+)`|__(.+)__|\*([^*]+)\*|_([^_]+)_"
    r"|[\"“]([^\"“”]+)[\"”]|['‘]([^']+)'|``([^`']+)''",
    re.DOTALL,
)
_CHOOSE = re.compile(
    r"(?<![A-Za-z0-9})\]])(?:\{\s*\}\s*)?(\^|_)\{?(\d+)\}?\s*\\?([CPA])_\{?(\d+)\}?"
)
# What is set apart by & and is no equation's other side.
_PIECE = re.compile(
    r"&(?!\s*(?:[=<>&]|\\(?:[lg]eq?|leqslant|geqslant|neq?|in|equiv|\\|end)(?![A-Za-z])))"
)
_BRACED = re.compile(
    r"\\left\s*\\\{\s*\\begin\{array\}\s*\{[lcr|]*\}(.*?)\\end\{array\}\s*\\right\s*\."
)
_SYSTEM = re.compile(
    r"\\begin\{(cases|equation\*?|aligned|align\*?|gathered)\}(.*?)\\end\{\1\}", re.DOTALL
)


@dataclass(frozen=True)
class Surface:
    """An answer without its typography.

    Attributes:
        text: LaTeX of the rest; white space is single spaces.
        currency: Of what a money sign stood in it, such as `dollar`, or "".
    """

    text: str
    currency: str = ""


def strip(raw: str) -> Surface:
    r"""Takes off what is typography and not content.

    Args:
        raw: An answer as written, such as `\textbf{$\$1{,}000.$}`.

    Returns:
        What is left; numbers with their thousands as written, fonts of text still in place.
    """
    text = re.sub(r"(?<=[\d}])\s*\^?\{?∘\}?", "°", raw.strip())
    if not text.isascii():
        text = _plain(text)
    # Long runs of white space, which a broken model does write, would cost the patterns below dear.
    text = " ".join(text.split())
    text = _listed(text)
    if r"\begin" in text:
        text = _SYSTEM.sub(_system, _BRACED.sub(r"\\begin{cases}\1\\end{cases}", text))
    if quoted := _QUOTED.fullmatch(text):
        text = next(filter(None, quoted.groups())).strip()
    text = re.sub(r"\{,\}\s*(?=\d{3}(?!\d))", ",", _TIGHT.sub(",", text))
    text = re.sub(r"(?<=\d)\{,\}(?=\d)", ".", text).replace("{,}", ",").replace("{:}", ":")
    text = _NEGATIVE.sub("", text)
    text, currency = _money(text)
    text = re.sub(r"\\left\s*<(.*?)\\right\s*>", r"\\langle \1\\rangle ", text)
    text = _STYLE.sub(" ", _DELIMITER.sub(" ", text))
    text = _SPACE.sub(" ", text)
    for sign, pattern, written in _REWRITTEN:
        if sign in text:
            text = pattern.sub(written, text)
    text = _CHOOSE.sub(_chosen, text)
    text = _unwrapped(_END.sub("", text.strip()).strip())
    return Surface(" ".join(text.split()), currency)


def _plain(text: str) -> str:
    text = re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+", lambda m: f"^{{{m[0].translate(_RAISED)}}}", text)
    text = re.sub("[₀₁₂₃₄₅₆₇₈₉ₙ]+", lambda m: f"_{{{m[0].translate(_LOWERED)}}}", text)
    text = _MARKED.sub(lambda m: rf"\{_MARKS[m[2]]}{{{m[1]}}}", text)
    found = []
    for char in text:
        if char in _TABLE:
            found.append(_TABLE[char])
        elif unicodedata.category(char) == "Cf":  # of no width
            continue
        elif unicodedata.category(char) == "Nd":  # of any script
            found.append(str(unicodedata.decimal(char)))
        elif "GREEK" in (name := unicodedata.name(char, "")) and "LETTER" in name:
            letter = name.split()[-1].lower().replace("lamda", "lambda")
            command = letter if "SMALL" in name else letter.capitalize()
            found.append(rf"\{command} " if letter in _GREEK else char)
        else:
            plain = unicodedata.normalize("NFKC", char)
            above, slash, below = plain.partition("⁄")
            found.append(rf"\frac{{{above}}}{{{below}}}" if slash else plain)
    text = "".join(found)
    # The sign of a root holds the number behind it, all its digits.
    text = re.sub(r"\\surd(\[[34]\])?\s*(\d+(?:\.\d+)?|[A-Za-z])", r"\\sqrt\1{\2}", text)
    return text.replace(r"\surd", r"\sqrt")


def _listed(text: str) -> str:
    """Unpacks a Python list of strings, in which some data sets keep their gold answers."""
    if not re.fullmatch(r"\[\s*(['\"]).*\1\s*\]", text):
        return text
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    return "; ".join(found) if all(isinstance(one, str) for one in found) else text


def _money(text: str) -> tuple[str, str]:
    text = _BARE_MONEY.sub(r"\1\\$", text)
    kinds = {_CURRENCIES[m[1] or m[2]] for m in _MONEY.finditer(text)}
    text = _MONEY.sub(" ", text)
    if code := _CODE.match(text):
        codes = {**dict.fromkeys(("USD", "CAD", "AUD"), "dollar"), "EUR": "euro", "GBP": "pound"}
        kinds.add(codes.get(code[1], "yuan" if code[1] in ("CNY", "RMB") else "rupee"))
        text = text[code.end() :]
    return text, "/".join(sorted(kinds))


def _system(found: re.Match[str]) -> str:
    """Writes equations under each other as a list; values with their conditions stay."""
    if _PIECE.search(found[2]):
        return found[0]
    return re.sub(r"\\\\(?:\s*\[[^][]*\])?", "; ", found[2]).replace("&", "")


def _chosen(found: re.Match[str]) -> str:
    name = "binom" if found[3] == "C" else "perm"
    return rf"\{name}{{{found[2]}}}{{{found[4]}}}"


_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)  # an escaped brace is passed over


def _unwrapped(text: str) -> str:
    """Takes braces off that hold the whole, as in `{5}` and not in `{a}+{b}`."""
    while text.startswith("{") and text.endswith("}"):
        depth = 0
        for found in _BRACE.finditer(text):
            depth += {"{": 1, "}": -1}.get(found[0], 0)
            if depth == 0:
                break
        if depth or found.end() < len(text):
            break
        text = text[1:-1].strip()
    return text
