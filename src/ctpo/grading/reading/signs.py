"""What stands between the parts of an answer: relations, operations, connectives."""

from __future__ import annotations

RELATIONS = {
    "=": "=", "<": "<", ">": ">", "<=": "<=", ">=": ">=", "!=": "!=", "lt": "<", "gt": ">",
    "le": "<=", "leq": "<=", "leqslant": "<=", "ge": ">=", "geq": ">=", "geqslant": ">=",
    "equiv": "=", "ne": "!=", "neq": "!=", "in": "in", "leqq": "<=", "geqq": ">=",
}  # fmt: skip
DOTS = {"ldots", "dots", "cdots", "dotsc", "dotsb"}
APPROXIMATE = {"approx", "simeq", "sim", *DOTS}
SETS = {
    "cup": "union",
    "bigcup": "union",
    "cap": "inter",
    "setminus": "minus",
    "backslash": "minus",
}
LOGICAL = {"lor": "or", "vee": "or", "land": "and", "wedge": "and"}
TIMES = {"*", "cdot", "times", "ast"}
