"""What a reward may be: a finite number, or None where nobody can tell."""

from __future__ import annotations

import math


def check_reward(value: object, function: str, row: str) -> float | None:
    """Return a reward as a number.

    Args:
        value: What a reward function returned. None says that it cannot tell.
        function: The function's name, for the message.
        row: Which answer it was, for the message.

    Raises:
        TypeError: It is no number.
        ValueError: It is not finite; it would become every weight's.
    """
    if value is None:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(
            f"the reward function {function!r} returned {value!r} for {row}; rewards must be "
            "numbers, or None where an answer cannot be graded"
        ) from None
    if not math.isfinite(number):
        raise ValueError(
            f"the reward function {function!r} returned {number} for {row}; rewards must be "
            "finite, or None where an answer cannot be graded"
        )
    return number
