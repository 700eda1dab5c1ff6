"""Errors for parameters and names: they say the field, the value and what would be right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
