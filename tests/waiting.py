"""Waiting for a state, so that no test depends on the moment at which it looks."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")

# Seconds: more than any state takes on a busy machine, and only spent by a test that fails.
PATIENCE = 120.0
_PAUSE = 0.01


def eventually(
    look: Callable[[], Seen],
    holds: Callable[[Seen], object] = bool,
    what: str = "the state waited for",
    *,
    patience: float = PATIENCE,
) -> Seen:
    """What `look` gives as soon as it `holds`; fails with what it gave last."""
    deadline = time.monotonic() + patience
    while not holds(seen := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} never came; last seen: {seen!r}")
        time.sleep(_PAUSE)
    return seen


async def aeventually(look: Callable[[], object], what: str = "the state waited for") -> None:
    """As `eventually`, while the event loop goes on."""
    deadline = time.monotonic() + PATIENCE
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} never came; last seen: {seen!r}")
        await asyncio.sleep(_PAUSE)
