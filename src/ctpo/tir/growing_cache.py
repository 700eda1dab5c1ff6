"""A cache of keys and values that grows in steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from transformers.cache_utils import DynamicLayer

if TYPE_CHECKING:
    from jaxtyping import Int

_GROWTH = 64  # columns a cache grows by at once: fewer copies, little waste


class GrowingLayer(DynamicLayer):
    """A cache layer that grows in steps, so that a new token costs no copy of the old ones."""

    length = 0
    is_initialized: bool

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Append columns; returns all there are."""
        if not self.is_initialized:
            self.dtype, self.device = key_states.dtype, key_states.device
            self.keys = key_states[:, :, :0]
            self.values = value_states[:, :, :0]
            self.is_initialized = True
        end = self.length + key_states.shape[2]
        if end > self.keys.shape[2]:
            self.keys = self._grow(self.keys, end + _GROWTH)
            self.values = self._grow(self.values, end + _GROWTH)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def _grow(self, old: Tensor, columns: int) -> Tensor:
        rows, heads, _, width = old.shape
        new = old.new_empty(rows, heads, columns, width)
        new[:, :, : self.length] = old[:, :, : self.length]
        return new

    def get_seq_length(self) -> int:
        """Return how many columns there are."""
        return self.length

    def select(self, rows: Int[Tensor, " kept"]) -> None:
        """Keep some rows alone."""
        self.keys = self.keys[rows]
        self.values = self.values[rows]
