"""A queue that serves who asks in turn, however much each of them wants."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item")
Path = tuple[Hashable, ...]


def path_of(flow: Hashable) -> Path:
    """Return a flow as a path: a tuple is one, such as an address and a client there."""
    return flow if isinstance(flow, tuple) else (flow,)


class FairQueue(Generic[Item]):
    """First come, first served within a flow; the flows take turns. Not thread-safe.

    Flows are paths: those of one beginning take turns among themselves for the turn of that
    beginning, so that many clients at one address get no more than one client at another.
    """

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._flows: OrderedDict[Hashable, FairQueue[Item]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, path: Path, item: Item) -> None:
        """Append to a flow."""
        self._length += 1
        if not path:
            self._items.append(item)
            return
        if path[0] not in self._flows:
            self._flows[path[0]] = FairQueue()
        self._flows[path[0]].put(path[1:], item)

    def get(self, allowed: Callable[[Path], bool] = lambda path: True) -> Item | None:
        """Take from the flow whose turn it is; None where nothing waits that may go.

        Args:
            allowed: Whether a flow may have a turn now.
        """
        return self._get(allowed, ())

    def _get(self, allowed: Callable[[Path], bool], path: Path) -> Item | None:
        found: Item | None = None
        if self._items and allowed(path):
            found = self._items.popleft()
        else:
            for name, flow in self._flows.items():
                if (found := flow._get(allowed, (*path, name))) is not None:
                    self._flows.move_to_end(name)
                    if not flow:
                        del self._flows[name]
                    break
        self._length -= found is not None
        return found

    def remove(self, path: Path, item: Item) -> bool:
        """Take an item out; whether it was there."""
        if not path:
            there = item in self._items
            if there:
                self._items.remove(item)
        else:
            flow = self._flows.get(path[0])
            there = flow is not None and flow.remove(path[1:], item)
            if there and not flow:
                del self._flows[path[0]]
        self._length -= there
        return there
