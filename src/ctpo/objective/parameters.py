"""Errors for parameters and names: they say the field, the value and what would be right."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable
from numbers import Real
from typing import Any


def require(holds: bool, owner: object, field: str, right: str) -> None:
    """Raise unless a parameter's condition holds.

    Args:
        holds: Whether the value is admissible. Write it so that NaN makes it false.
        owner: The dataclass instance that has the field.
        field: Name of the field.
        right: What the value must be, with an example.

    Raises:
        ValueError: If `holds` is false; names the field, its value and what would be right.
    """
    if not holds:
        raise ValueError(
            f"{type(owner).__name__}.{field} is {getattr(owner, field)!r}; it must be {right}"
        )


def is_number(value: object) -> bool:
    """Return whether a value is a number, which a truth value or a tensor is not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def require_numbers(owner: Any) -> None:  # noqa: ANN401 - a dataclass
    """Raise unless the fields of a dataclass that are to be numbers are.

    Args:
        owner: An instance whose annotations are strings, as under `annotations` of `__future__`.

    Raises:
        TypeError: One is text, a truth value, a tensor or anything else; names it and its value.
    """
    for field in dataclasses.fields(owner):
        value = getattr(owner, field.name)
        if field.type not in ("float", "float | None") or (
            value is None and field.type == "float | None"
        ):
            continue
        if not is_number(value):
            raise TypeError(
                f"{type(owner).__name__}.{field.name} is {value!r}; it must be a number"
                + (" or None" if field.type == "float | None" else "")
            )


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> ValueError:
    """Return the error for a name that does not exist, with the nearest one that does.

    Args:
        kind: What was named, e.g. `"preset"`.
        name: The name that was given.
        valid: The names that exist; at least one.

    Returns:
        A `ValueError` to raise.
    """
    names = {name.lower(): name for name in valid}
    (closest,) = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.0)
    return ValueError(
        f"unknown {kind} {name!r}; did you mean {names[closest]!r}? "
        f"Valid: {', '.join(names.values())}"
    )
