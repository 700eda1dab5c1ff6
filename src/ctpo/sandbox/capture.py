"""Keep the beginning of a stream, and notice when there is more."""

from __future__ import annotations

import os


class Capture:
    """Reads a pipe into a buffer that has room for one byte more than is kept.

    Args:
        pipe: Non-blocking reading end; closed by `finish`.
        limit: Most bytes kept.
    """

    def __init__(self, pipe: int, limit: int) -> None:
        self.pipe = pipe
        self._limit = limit
        self._buffer = bytearray(limit + 1)
        self._filled = 0

    @property
    def exceeded(self) -> bool:
        """Whether more came than is kept."""
        return self._filled > self._limit

    @property
    def kept(self) -> memoryview:
        """What is kept."""
        return memoryview(self._buffer)[: min(self._filled, self._limit)]

    def read(self) -> bool:
        """Read what is there; whether more may come."""
        if self.exceeded:
            return False
        try:
            count = os.readv(self.pipe, [memoryview(self._buffer)[self._filled :]])
        except BlockingIOError:
            return True
        self._filled += count
        return count > 0

    def drain(self) -> None:
        """Read to the end, once every writer is gone, and close the pipe."""
        while self.read():
            pass
        os.close(self.pipe)

    def wipe(self) -> None:
        """Overwrite what was read: the next program starts as a copy of this memory."""
        self._buffer[: self._filled] = bytes(self._filled)
