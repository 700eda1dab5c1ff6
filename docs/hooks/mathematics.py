"""Formulas as MathML, which browsers set themselves: no script, and no network, now or later."""

import html
import re

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)


def on_page_content(content, **_):
    """Is called by mkdocs with each page's HTML, in which `pymdownx.arithmatex` marks formulas."""

    def typeset(match):
        display = "block" if match[2] == "[" else "inline"
        return convert(html.unescape(match[3]), display=display)

    return _FORMULA.sub(typeset, content)
