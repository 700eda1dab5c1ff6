"""What clients may hold of something there is only so much of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager


class Shares:
    """So much for all; each client may hold as much as is still free beside all the others.

    One client alone gets half, two get a third each, and so on: whatever some hold, a newcomer gets
    something (the dynamic threshold of Choudhury and Hahne, 1998,
    https://doi.org/10.1109/90.664262).
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: Counter[Hashable] = Counter()
        self._all = 0

    @contextmanager
    def holding(self, client: Hashable) -> Iterator[Share]:
        """Yield a client's share, which takes up what it needs; the end gives it back."""
        share = Share(self, client)
        try:
            yield share
        finally:
            share.take(-share.held)

    def _take(self, client: Hashable, amount: int) -> bool:
        if amount > 0 and self._held[client] + amount > self._most - self._all:
            return False
        self._held[client] += amount
        self._all += amount
        if not self._held[client]:
            del self._held[client]
        return True


class Share:
    """What one request of a client holds."""

    def __init__(self, shares: Shares, client: Hashable) -> None:
        self._shares, self._client = shares, client
        self.held = 0

    def take(self, amount: int) -> bool:
        """Take more, or give back what is negative; whether there was so much for this client."""
        taken = self._shares._take(self._client, amount)
        self.held += amount if taken else 0
        return taken
