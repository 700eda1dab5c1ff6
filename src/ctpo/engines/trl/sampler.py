"""The order of prompts: a function of seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class EpochSampler(Sampler[int]):
    """Yields prompt indices in the pattern TRL's loop consumes.

    Per batch of rollouts: `prompts` indices, each `responses` times in a row, the whole
    `repeats` times over (once per micro-batch, of which only the first generates). The order of an
    epoch comes from the seed and the epoch's number, so it can be taken up anywhere again, and
    later epochs do not replay the first.

    Args:
        size: Number of prompts in the data set.
        prompts: Different prompts in a batch of rollouts.
        responses: Responses per prompt.
        repeats: Micro-batches per batch of rollouts.
        shuffle: Whether to permute; else the data set's own order is kept.
        seed: Of the permutation.

    Raises:
        ValueError: The data set has too few prompts for one batch.
    """

    def __init__(
        self, size: int, prompts: int, responses: int, repeats: int, *, shuffle: bool, seed: int
    ) -> None:
        if size < prompts:
            raise ValueError(
                f"the data set has {size} prompts; one batch of rollouts takes {prompts}"
            )
        self.size = size
        self.prompts = prompts
        self.responses = responses
        self.repeats = repeats
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration follows."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = list(range(self.size))
        if self.shuffle:
            # A generator takes one number: spread the seeds so that (seed, epoch) do not meet.
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.size, generator=generator).tolist()
        for start in range(0, self.size - self.prompts + 1, self.prompts):
            batch = order[start : start + self.prompts]
            for _ in range(self.repeats):
                for index in batch:
                    yield from [index] * self.responses

    def __len__(self) -> int:
        batches = self.size // self.prompts
        return batches * self.prompts * self.responses * self.repeats
