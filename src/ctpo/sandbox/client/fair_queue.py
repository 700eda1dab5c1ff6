"""A queue that serves who asks in turn, however much each of them wants."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """First come, first served within a flow; the flows take turns. Not thread-safe."""

    def __init__(self) -> None:
        self._flows: OrderedDict[Hashable, deque[Item]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, flow: Hashable, item: Item) -> None:
        """Append to a flow."""
        self._flows.setdefault(flow, deque()).append(item)
        self._length += 1

    def get(self) -> Item:
        """Take from the flow whose turn it is.

        Raises:
            IndexError: Nothing waits.
        """
        if not self._flows:
            raise IndexError("the queue is empty")
        flow, items = self._flows.popitem(last=False)
        item = items.popleft()
        if items:
            self._flows[flow] = items  # at the end of the round
        self._length -= 1
        return item

    def remove(self, flow: Hashable, item: Item) -> bool:
        """Take an item out; whether it was there."""
        items = self._flows.get(flow)
        if items is None or item not in items:
            return False
        items.remove(item)
        if not items:
            del self._flows[flow]
        self._length -= 1
        return True
