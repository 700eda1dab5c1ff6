"""Generation with a `transformers` model: one KV-cache loop that keeps the cache between turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from ctpo.tir.generation import Sampled, StopReason, StopRule

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_GROWTH = 64  # columns a cache grows by at once: fewer copies, little waste
_COMPACT_BELOW = 0.75  # finished rows are dropped once they are a quarter of the batch


class _GrowingLayer(DynamicLayer):
    """A cache layer that grows in steps, so that a new token costs no copy of the old ones."""

    length = 0
    is_initialized: bool

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
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
        return self.length

    def select(self, rows: Int[Tensor, " kept"]) -> None:
        self.keys = self.keys[rows]
        self.values = self.values[rows]


class TransformersGenerator:
    """A `Generator` on a causal language model of the `transformers` library.

    It samples from softmax(logits / temperature) over the whole vocabulary, without top-p or
    top-k: cutting the tail would bias every importance ratio by the mass cut off.

    Args:
        model: The policy. Used in evaluation mode and without gradients; its mode is restored.
        tokenizer: The model's tokenizer.
        eos_token_ids: Ids that end the policy's turn; by default the tokenizer's and those of the
            model's generation configuration.
        precision: A context in which the model is run, such as a trainer's autocast.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        eos_token_ids: Sequence[int] | None = None,
        precision: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.eos_token_ids = list(eos_token_ids or _eos_token_ids(model, tokenizer))
        self.precision = precision
        self._triggers: dict[str, frozenset[int]] = {}

    def open(
        self, prompts: Sequence[Sequence[int]], *, temperature: float, seed: int
    ) -> TransformersSession:
        """Start a session; see `Generator.open`.

        Raises:
            ValueError: No prompts, an empty prompt or a negative temperature.
        """
        if not prompts or not all(prompts):
            raise ValueError("prompts must hold at least one prompt, each of at least one token")
        if temperature < 0:
            raise ValueError(f"temperature is {temperature}; 0 (greedy) or more is right")
        return TransformersSession(self, prompts, temperature, seed)

    def triggers(self, characters: str) -> frozenset[int]:
        """Return the ids of all tokens whose text has one of `characters`."""
        if characters not in self._triggers:
            texts = self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))])
            ids = frozenset(
                i for i, text in enumerate(texts) if not set(characters).isdisjoint(text)
            )
            self._triggers[characters] = ids
        return self._triggers[characters]


class TransformersSession:
    """A `Session` on one batch of prompts; made by `TransformersGenerator.open`."""

    def __init__(
        self,
        generator: TransformersGenerator,
        prompts: Sequence[Sequence[int]],
        temperature: float,
        seed: int,
    ) -> None:
        self._generator = generator
        self._model = generator.model
        self._device = self._model.device
        self._temperature = temperature
        self._random = torch.Generator(self._device).manual_seed(seed)
        # Token ids that are in a row's context but not yet in its cache.
        self._pending = [list(prompt) for prompt in prompts]
        # Between turns each row's keys and values lie here: a (keys, values) pair per layer, each
        # [heads, tokens, width]. Empty before the first turn.
        self._kept: dict[int, list[tuple[Tensor, Tensor]]] = {}
        self._over: set[int] = set()

    @torch.no_grad()
    def generate(
        self,
        rows: Sequence[int],
        append: Sequence[Sequence[int]],
        budgets: Sequence[int],
        stop: StopRule,
    ) -> list[Sampled]:
        """Append tokens, then sample; see `Session.generate`.

        Raises:
            ValueError: A row that is over, or a budget below 1.
        """
        for row, budget in zip(rows, budgets, strict=True):
            if row in self._over:
                raise ValueError(f"row {row} is over: it ended with eos or length")
            if budget < 1:
                raise ValueError(f"the budget of row {row} is {budget}; at least 1 is needed")
        was_training = self._model.training
        self._model.eval()
        try:
            with self._generator.precision():
                return self._generate(rows, append, budgets, stop)
        finally:
            self._model.train(was_training)

    def _generate(
        self,
        rows: Sequence[int],
        append: Sequence[Sequence[int]],
        budgets: Sequence[int],
        stop: StopRule,
    ) -> list[Sampled]:
        cache, mask = self._restore(rows)
        chunks = [self._pending[row] + list(ids) for row, ids in zip(rows, append, strict=True)]
        input_ids, chunk_mask = _pad_left(chunks, self._device)
        positions = mask.sum(1, keepdim=True) + (chunk_mask.cumsum(1) - 1).clamp(min=0)
        mask = torch.cat([mask, chunk_mask], 1)

        eos = frozenset(self._generator.eos_token_ids)
        triggers = self._generator.triggers(stop.trigger)
        decode = self._generator.tokenizer.decode
        results: list[Sampled | None] = [None] * len(rows)
        ids: list[list[int]] = [[] for _ in rows]
        logprobs: list[list[float]] = [[] for _ in rows]
        batch = list(range(len(rows)))  # batch[b] is the index into `rows` that lies in line b
        open_lines = len(batch)
        while True:
            logits = self._model(
                input_ids=input_ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            tokens, token_logprobs = self._sample(logits)
            # One transfer to the host per step: the loop has to look at every token anyway.
            for line, (token, logprob) in enumerate(
                zip(tokens.tolist(), token_logprobs.tolist(), strict=True)
            ):
                index = batch[line]
                if results[index] is not None:
                    continue
                ids[index].append(token)
                logprobs[index].append(logprob)
                reason: StopReason
                if token in eos:
                    reason = "eos"
                elif token in triggers and stop(decode(ids[index], skip_special_tokens=True)):
                    reason = "stop"
                elif len(ids[index]) == budgets[index]:
                    reason = "length"
                else:
                    continue
                results[index] = Sampled(ids[index], logprobs[index], reason)
                open_lines -= 1
                if reason == "stop":
                    self._keep(rows[index], cache, line, mask[line], last_token=token)
                else:
                    self._over.add(rows[index])
            if open_lines == 0:
                return [result for result in results if result is not None]
            input_ids = tokens[:, None]
            positions = positions[:, -1:] + 1
            if open_lines < _COMPACT_BELOW * len(batch):
                lines = [line for line, index in enumerate(batch) if results[index] is None]
                batch = [batch[line] for line in lines]
                kept = torch.tensor(lines, device=self._device)
                input_ids, positions, mask = input_ids[kept], positions[kept], mask[kept]
                for layer in cache.layers:
                    layer.select(kept)
            mask = torch.cat([mask, mask.new_ones(len(batch), 1)], 1)

    def _sample(
        self, logits: Float[Tensor, "lines vocab"]
    ) -> tuple[Int[Tensor, " lines"], Float[Tensor, " lines"]]:
        """Draw a token per line and return its log-probability, in fp32."""
        logits = logits.float()
        if self._temperature == 0:
            log_probabilities = logits.log_softmax(-1)
            tokens = logits.argmax(-1)
        else:
            log_probabilities = (logits / self._temperature).log_softmax(-1)
            # argmax(log p − log e) with e ~ Exp(1) draws from p (the Gumbel-max trick).
            noise = torch.empty_like(logits).exponential_(generator=self._random)
            tokens = (log_probabilities - noise.log()).argmax(-1)
        return tokens, log_probabilities.gather(-1, tokens[:, None])[:, 0]

    def _keep(
        self,
        row: int,
        cache: Cache,
        line: int,
        mask: Bool[Tensor, " columns"],
        *,
        last_token: int,
    ) -> None:
        """Lay a row's keys and values aside until its next turn."""
        self._kept[row] = [
            (
                layer.keys[line][:, : layer.length][:, mask],
                layer.values[line][:, : layer.length][:, mask],
            )
            for layer in cache.layers
        ]
        # The last token was sampled but not yet read by the model.
        self._pending[row] = [last_token]

    def _restore(self, rows: Sequence[int]) -> tuple[Cache, Bool[Tensor, "lines columns"]]:
        """Build a cache of the rows' kept keys and values, aligned on the right."""
        lengths = [self._kept[row][0][0].shape[1] if row in self._kept else 0 for row in rows]
        columns = max(lengths)
        mask = torch.zeros(len(rows), columns, dtype=torch.bool, device=self._device)
        layers = [_GrowingLayer() for _ in range(self._model.config.num_hidden_layers)]
        for line, length in enumerate(lengths):
            mask[line, columns - length :] = True
        if columns:
            for index, layer in enumerate(layers):
                some_keys, some_values = next(
                    self._kept[row][index] for row in rows if row in self._kept
                )
                heads, _, width = some_keys.shape
                keys = some_keys.new_zeros(len(rows), heads, columns, width)
                values = some_values.new_zeros(len(rows), heads, columns, some_values.shape[2])
                for line, row in enumerate(rows):
                    if row in self._kept:
                        row_keys, row_values = self._kept[row][index]
                        keys[line, :, columns - lengths[line] :] = row_keys
                        values[line, :, columns - lengths[line] :] = row_values
                layer.update(keys, values)
        for row in rows:
            self._kept.pop(row, None)  # held once, in the cache
        return Cache(layers=layers), mask


def _pad_left(
    chunks: Sequence[Sequence[int]], device: torch.device
) -> tuple[Int[Tensor, "lines columns"], Bool[Tensor, "lines columns"]]:
    columns = max(len(chunk) for chunk in chunks)
    # Padded places are never attended to, so any id serves.
    padded = torch.tensor([[0] * (columns - len(c)) + list(c) for c in chunks], device=device)
    lengths = torch.tensor([len(c) for c in chunks], device=device)
    mask = torch.arange(columns, device=device) >= columns - lengths[:, None]
    return padded, mask


def _eos_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    configured = model.generation_config.eos_token_id if model.generation_config else None
    ids = [configured] if isinstance(configured, int) else list(configured or [])
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ids:
        ids.append(tokenizer.eos_token_id)
    if not ids:
        raise ValueError("neither the tokenizer nor the model names an end-of-turn token")
    return ids
