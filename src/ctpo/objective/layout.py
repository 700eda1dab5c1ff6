"""Layouts of a batch: where sequences begin and end, and sums along them.

Everything else in this room is written once, on whatever shape the tokens come in: it asks the
layout for what runs along a sequence (positions, prefix sums, totals) and computes the rest token
by token.

With a process group, a batch is the local shard of sequences that are cut along their length over
the group's ranks. Then each quantity that runs along a sequence is completed by what the other
ranks hold of it: an exclusive scan over ranks for prefixes, a sum for totals.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Shaped
    from torch import Tensor

# Shapes below: `*tokens` is [B, T] or [N], `*rows` is [B, 1] or [S], one entry per sequence.


class Layout(ABC):
    """What runs along sequences, for tokens of shape `*tokens`.

    Args:
        mask: True on policy tokens.
        process_group: The ranks over which each sequence is cut; None if sequences are whole.

    Attributes:
        mask: True on policy tokens.
        process_group: The ranks over which each sequence is cut.
    """

    def __init__(
        self, mask: Bool[Tensor, "*tokens"], process_group: dist.ProcessGroup | None
    ) -> None:
        self.mask = mask
        self.process_group = process_group

    # Computed when they are first asked for: the fused path needs none of them.

    @functools.cached_property
    def outside(self) -> Bool[Tensor, "*tokens"]:
        """True where the mask is not."""
        return ~self.mask

    @functools.cached_property
    def lengths(self) -> Int[Tensor, "*rows"]:
        """Policy tokens H of each sequence, over all ranks."""
        return self._lengths[1]

    @functools.cached_property
    def positions(self) -> Float[Tensor, "*tokens"]:
        """T of each policy token, from 1, over all ranks; broadcasts to `*tokens`.

        A masked place carries any whole number of at least 0.
        """
        local = self._local_positions()
        before = self._lengths[0]
        return local if before is None else local + self.spread(before).to(local.dtype)

    @functools.cached_property
    def in_columns(self) -> bool:
        """Whether it is known that position t stands in column t of every row."""
        return False

    @functools.cached_property
    def _lengths(self) -> tuple[Tensor | None, Tensor]:
        """Policy tokens of each sequence on the ranks before this one, and on all."""
        return self._over_ranks(self._totals(self.mask.to(torch.int64)), torch.sum)

    @property
    def first_rank(self) -> bool:
        """Whether this rank holds the beginning of the sequences."""
        return self.process_group is None or dist.get_rank(self.process_group) == 0

    @abstractmethod
    def spread(self, rows: Shaped[Tensor, "*rows"]) -> Shaped[Tensor, "*tokens"]:
        """Return each sequence's value at its tokens, or something that broadcasts to that."""

    @abstractmethod
    def per_sequence(self, values: Float[Tensor, "*tokens"]) -> Float[Tensor, " sequences"]:
        """Return the local sum over each sequence, as a vector.

        Args:
            values: 0 where masked.
        """

    @abstractmethod
    def _totals(self, values: Shaped[Tensor, "*tokens"]) -> Shaped[Tensor, "*rows"]: ...

    @abstractmethod
    def _prefix_sums(self, values: Float[Tensor, "*tokens"]) -> Float[Tensor, "*tokens"]: ...

    @abstractmethod
    def _preceding_minima(self, values: Float[Tensor, "*tokens"]) -> Float[Tensor, "*tokens"]: ...

    @abstractmethod
    def _minima(self, values: Float[Tensor, "*tokens"]) -> Float[Tensor, "*rows"]: ...

    @abstractmethod
    def _local_positions(self) -> Tensor: ...

    def totals(self, values: Float[Tensor, "*tokens"]) -> Float[Tensor, "*rows"]:
        """Return the sum over each sequence, over all ranks.

        Args:
            values: 0 where masked.
        """
        return self._over_ranks(self._totals(values), torch.sum)[1]

    def prefix_sums(self, values: Float[Tensor, "*tokens"]) -> Float[Tensor, "*tokens"]:
        """Return Σ_{j≤t} within each sequence, over all ranks.

        Args:
            values: 0 where masked.
        """
        sums = self._prefix_sums(values)
        if self.process_group is None:
            return sums
        before, _ = self._over_ranks(self._totals(values), torch.sum)
        assert before is not None
        return sums + self.spread(before)

    def suffix_sums(self, values: Float[Tensor, "*tokens"]) -> Float[Tensor, "*tokens"]:
        """Return Σ_{j≥t} within each sequence, over all ranks: the transpose of `prefix_sums`.

        Args:
            values: 0 where masked.
        """
        return self.spread(self.totals(values)) - self.prefix_sums(values) + values

    def preceding_minima(self, values: Float[Tensor, "*tokens"]) -> Float[Tensor, "*tokens"]:
        """Return min_{j<t} within each sequence, over all ranks; +inf where nothing precedes.

        Args:
            values: +inf where masked.
        """
        minima = self._preceding_minima(values)
        if self.process_group is None:
            return minima
        before, _ = self._over_ranks(self._minima(values), torch.amin)
        assert before is not None
        return torch.minimum(minima, self.spread(before))

    def _over_ranks(self, local: Tensor, combine: object) -> tuple[Tensor | None, Tensor]:
        """Return what the ranks before this one hold together, and what all of them do.

        The first is None where sequences are whole.
        """
        if self.process_group is None:
            return None, local
        gathered = [torch.empty_like(local) for _ in range(dist.get_world_size(self.process_group))]
        dist.all_gather(gathered, local.contiguous(), group=self.process_group)
        rank = dist.get_rank(self.process_group)
        assert callable(combine)
        # The neutral element, so that the first rank has something to combine.
        neutral = torch.full_like(local, torch.inf if combine is torch.amin else 0)
        before = combine(torch.stack([neutral, *gathered[:rank]]), dim=0)
        return before, combine(torch.stack(gathered), dim=0)


class Padded(Layout):
    """Tokens [B, T], a sequence per row; rows [B, 1]. Padding may stand on either side.

    Args:
        mask: True on policy tokens.
        process_group: As for `Layout`; rank r holds columns r·T to (r+1)·T - 1.
    """

    def spread(self, rows: Shaped[Tensor, "B 1"]) -> Shaped[Tensor, "B 1"]:
        """Return it as it is: a column broadcasts along its row."""
        return rows

    def per_sequence(self, values: Float[Tensor, "B T"]) -> Float[Tensor, " B"]:
        """Return the local sum over each row; see `Layout.per_sequence`."""
        return values.sum(dim=1)

    def _totals(self, values: Tensor) -> Tensor:
        return values.sum(dim=1, keepdim=True)

    def _prefix_sums(self, values: Tensor) -> Tensor:
        return values.cumsum(dim=1)

    def _preceding_minima(self, values: Tensor) -> Tensor:
        minima = values.cummin(dim=1).values
        return torch.nn.functional.pad(minima[:, :-1], (1, 0), value=torch.inf)

    def _minima(self, values: Tensor) -> Tensor:
        return values.amin(dim=1, keepdim=True)

    @functools.cached_property
    def in_columns(self) -> bool:
        """Whether it is known that position t stands in column t of every row."""
        # Reading the mask is free on a CPU and a host sync elsewhere.
        if self.process_group is not None or self.mask.device.type != "cpu":
            return False
        return not bool((self.mask[:, 1:] & self.outside[:, :-1]).any())

    def _local_positions(self) -> Tensor:
        if self.in_columns:  # one row of positions serves all
            return torch.arange(1, self.mask.shape[1] + 1, dtype=torch.float32)[None, :]
        # float32 counts exactly up to 2^24.
        return self.mask.cumsum(dim=1, dtype=torch.float32)


class Packed(Layout):
    """Tokens [N], sequences one after the other; rows [S].

    Args:
        mask: True on policy tokens.
        cu_seqlens: Where sequences begin and the last one ends, from 0 to the number of tokens (of
            all ranks together).
        process_group: As for `Layout`; rank r holds tokens r·N to (r+1)·N - 1.

    Attributes:
        edges: `cu_seqlens` as it is on this rank.
    """

    def __init__(
        self,
        mask: Bool[Tensor, " N"],
        cu_seqlens: Int[Tensor, " S+1"],
        process_group: dist.ProcessGroup | None,
    ) -> None:
        super().__init__(mask, process_group)
        first = 0 if process_group is None else dist.get_rank(process_group) * len(mask)
        self.edges = (cu_seqlens.to(torch.int64) - first).clamp(0, len(mask))

    @functools.cached_property
    def _starts(self) -> Int[Tensor, " S"]:
        return self.edges[:-1]

    @functools.cached_property
    def _sequence(self) -> Int[Tensor, " N"]:
        """The sequence of each token."""
        lengths = self.edges.diff()
        each = torch.arange(len(lengths), device=lengths.device)
        return each.repeat_interleave(lengths, output_size=len(self.mask))

    def spread(self, rows: Shaped[Tensor, " S"]) -> Shaped[Tensor, " N"]:
        """Return each sequence's value at its tokens; see `Layout.spread`."""
        return rows[self._sequence]

    def per_sequence(self, values: Float[Tensor, " N"]) -> Float[Tensor, " S"]:
        """Return the local sum over each sequence; see `Layout.per_sequence`."""
        return self._totals(values)

    def _totals(self, values: Tensor) -> Tensor:
        # In float64, in which the order of addition, which a GPU does not fix, hardly shows.
        wide = values.double() if values.is_floating_point() else values
        sums = torch.zeros(len(self._starts), dtype=wide.dtype, device=wide.device)
        return sums.index_add(0, self._sequence, wide).to(values.dtype)

    def _prefix_sums(self, values: Tensor) -> Tensor:
        # One running sum over all sequences, less what it was where each began. float64 keeps the
        # difference exact to far below float32.
        running = values.double().cumsum(dim=0)
        shifted = torch.nn.functional.pad(running, (1, 0))
        return (running - shifted[self._starts][self._sequence]).to(values.dtype)

    def _preceding_minima(self, values: Tensor) -> Tensor:
        place = torch.arange(len(values), device=values.device)
        start = self._starts[self._sequence]

        def earlier(minima: Tensor, reach: int) -> Tensor:
            source = minima[(place - reach).clamp(min=0)]
            return torch.where(place - reach >= start, source, torch.inf)

        # Doubling: after step k each place knows the minimum of the 2^k places before it.
        minima, reach = earlier(values, 1), 1
        while reach < len(values):
            minima = torch.minimum(minima, earlier(minima, reach))
            reach *= 2
        return minima

    def _minima(self, values: Tensor) -> Tensor:
        minima = values.new_full((len(self._starts),), torch.inf)
        return minima.scatter_reduce(0, self._sequence, values, "amin")

    def _local_positions(self) -> Tensor:
        return self._prefix_sums(self.mask.to(torch.float32))
