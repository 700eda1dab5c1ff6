"""Generation with a `transformers` model: one KV-cache loop that keeps the cache between turns."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from ctpo.tir.cache_check import ANY, UnsupportedModel, refuse_what_needs_another_cache
from ctpo.tir.generation import Sampled, StopReason, StopRule
from ctpo.tir.growing_cache import GrowingLayer
from ctpo.tir.turn_text import turn_text
from ctpo.tir.weights import check_weights

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["TransformersGenerator", "TransformersSession", "UnsupportedModel"]

_COMPACT_BELOW = 0.75  # finished rows are dropped once they are a quarter of the batch


class TransformersGenerator:
    """A `Generator` on a causal language model of the `transformers` library.

    It samples from softmax(logits / temperature) over the whole vocabulary, without top-p or
    top-k: cutting the tail would bias every importance ratio by the mass cut off.

    What a row has read must be its keys and values, one of each per token and layer; state-space
    models and their hybrids keep something else. So two short rows are generated first and compared
    with plain forward passes.

    Args:
        model: The policy. Used in evaluation mode and without gradients; its mode is restored.
        tokenizer: The model's tokenizer.
        eos_token_ids: Ids that end the policy's turn; by default the tokenizer's and those of the
            model's generation configuration.
        precision: A context in which the model is run, such as a trainer's autocast.

    Raises:
        BrokenWeights: The model's weights are NaN or infinite.
        UnsupportedModel: The model says otherwise with a cache than without.
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
        self._triggers: dict[str, Container[int]] = {ANY: range(sys.maxsize)}
        check_weights(model)
        refuse_what_needs_another_cache(self)

    def open(
        self, prompts: Sequence[Sequence[int]], *, temperature: float, seed: int
    ) -> TransformersSession:
        """Start a session; see `Generator.open`.

        Raises:
            ValueError: No prompts, an empty prompt or a negative temperature.
            BrokenWeights: The model's weights have become NaN or infinite.
        """
        if not prompts or not all(prompts):
            raise ValueError("prompts must hold at least one prompt, each of at least one token")
        if temperature < 0:
            raise ValueError(f"temperature is {temperature}; 0 (greedy) or more is right")
        check_weights(self.model)
        return TransformersSession(self, prompts, temperature, seed)

    def triggers(self, characters: str) -> Container[int]:
        """Return the ids of all tokens whose text has one of `characters`; all for `ANY`."""
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
        self._contexts = [list(prompt) for prompt in prompts]
        # Between turns, the keys and values of each row's context but for its last token, which was
        # sampled and not yet read: a (keys, values) pair per layer, each [heads, tokens, width].
        # Empty before the first turn.
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
        for row, more in zip(rows, append, strict=True):
            self._contexts[row] += more
        cache, input_ids, mask = self._restore(rows)
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]

        eos = frozenset(self._generator.eos_token_ids)
        triggers = self._generator.triggers(stop.trigger)
        tokenizer = self._generator.tokenizer
        results: list[Sampled | None] = [None] * len(rows)
        ids: list[list[int]] = [[] for _ in rows]
        logprobs: list[list[float]] = [[] for _ in rows]
        batch = list(range(len(rows)))  # batch[b] is the index into `rows` that lies in line b
        open_lines = len(batch)
        logits = self._begin(rows, cache, input_ids, mask, positions)
        while True:
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
                elif token in triggers and stop(turn_text(tokenizer, ids[index])):
                    reason = "stop"
                elif len(ids[index]) == budgets[index]:
                    reason = "length"
                else:
                    continue
                results[index] = Sampled(ids[index], logprobs[index], reason)
                open_lines -= 1
                if reason == "stop":
                    self._contexts[rows[index]] += ids[index]
                    self._keep(rows[index], cache, line, mask[line])
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
            logits = self._read(cache, input_ids, mask, positions)

    def _begin(
        self,
        rows: Sequence[int],
        cache: Cache,
        input_ids: Int[Tensor, "lines unread"],
        mask: Bool[Tensor, "lines columns"],
        positions: Int[Tensor, "lines unread"],
    ) -> Float[Tensor, "lines vocab"]:
        """Read what is unread; of all answers to one prompt the first reads it for the others."""
        contexts = [tuple(self._contexts[row]) for row in rows]
        first = {context: line for line, context in reversed(list(enumerate(contexts)))}
        if cache.get_seq_length() or len(first) == len(rows):
            return self._read(cache, input_ids, mask, positions)
        lines = torch.tensor(list(first.values()), device=self._device)
        place = {context: number for number, context in enumerate(first)}
        read_by = torch.tensor([place[context] for context in contexts], device=self._device)
        logits = self._read(cache, input_ids[lines], mask[lines], positions[lines])
        for layer in cache.layers:
            layer.select(read_by)
        return logits[read_by]

    def _read(
        self,
        cache: Cache,
        input_ids: Int[Tensor, "lines unread"],
        mask: Bool[Tensor, "lines columns"],
        positions: Int[Tensor, "lines unread"],
    ) -> Float[Tensor, "lines vocab"]:
        """Let the model read on; return its logits behind each line's last token."""
        logits: Tensor = self._model(
            input_ids=input_ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return logits

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

    def _keep(self, row: int, cache: Cache, line: int, mask: Bool[Tensor, " columns"]) -> None:
        """Lay a row's keys and values aside until its next turn."""
        self._kept[row] = [
            (
                layer.keys[line][:, : layer.length][:, mask],
                layer.values[line][:, : layer.length][:, mask],
            )
            for layer in cache.layers
        ]

    def _restore(
        self, rows: Sequence[int]
    ) -> tuple[Cache, Int[Tensor, "lines unread"], Bool[Tensor, "lines columns"]]:
        """Build a cache of what the model has read, and the tokens it has to read now.

        Every line is padded on its left alone. Where one row has more to read than another, the
        other reads some of its tokens again: padding between its cache and its new tokens would
        cost as much, and models whose attention looks back a number of columns (a sliding window,
        chunks) would take it for distance.
        """
        layers_of = [self._kept.pop(row, None) for row in rows]  # held once, in the cache
        contexts = [self._contexts[row] for row in rows]
        unread = max(
            len(context) - (layers[0][0].shape[1] if layers else 0)
            for context, layers in zip(contexts, layers_of, strict=True)
        )
        longest = max(len(context) for context in contexts)
        lengths = torch.tensor([len(context) for context in contexts], device=self._device)
        mask = torch.arange(longest, device=self._device) >= longest - lengths[:, None]
        # Padded places are never attended to, so any id serves.
        input_ids = torch.tensor(
            [[0] * (unread - len(context)) + context[-unread:] for context in contexts],
            device=self._device,
        )
        read = [max(0, len(context) - unread) for context in contexts]
        some = next((layers for layers in layers_of if layers), [])
        config = self._model.config.get_text_config(decoder=True)
        # The last layers of some models read the keys of earlier ones.
        own = config.num_hidden_layers - getattr(config, "num_kv_shared_layers", 0)
        cache = [GrowingLayer() for _ in range(own)]
        for index, like in enumerate(some if longest > unread else []):
            keys, values = (
                x.new_zeros(len(rows), len(x), longest - unread, x.shape[2]) for x in like
            )
            for line, (count, layers) in enumerate(zip(read, layers_of, strict=True)):
                if count and layers:
                    keys[line, :, -count:] = layers[index][0][:, :count]
                    values[line, :, -count:] = layers[index][1][:, :count]
            cache[index].update(keys, values)
        return Cache(layers=cache), input_ids, mask


def _eos_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    configured = model.generation_config.eos_token_id if model.generation_config else None
    ids = [configured] if isinstance(configured, int) else list(configured or [])
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ids:
        ids.append(tokenizer.eos_token_id)
    if not ids:
        raise ValueError("neither the tokenizer nor the model names an end-of-turn token")
    return ids
