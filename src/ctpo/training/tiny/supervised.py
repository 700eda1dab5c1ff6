"""Supervised learning of transcripts: what the warm start does step by step."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers import PreTrainedTokenizerBase as Tokenizer

from ctpo.training.recipe.recipe import WarmStart
from ctpo.training.tiny import teacher
from ctpo.training.tiny.muon import Muon

Example = tuple[list[int], list[int]]  # input ids, and labels of the same length

_IGNORED = -100  # the label that cross_entropy passes over
_RISE = 30  # steps in which the learning rate rises


def encode(tokenizer: Tokenizer, transcript: teacher.Transcript) -> Example:
    """Return input ids and labels; only what the teacher wrote is learned."""
    prompt = tokenizer.apply_chat_template(
        list(transcript.messages), tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer.encode(prompt, add_special_tokens=False)
    labels = [_IGNORED] * len(ids)
    # Piece by piece, as the tokens come together in an episode.
    for text, is_teacher in transcript.pieces:
        piece = tokenizer.encode(text, add_special_tokens=False)
        ids += piece
        labels += piece if is_teacher else [_IGNORED] * len(piece)
    return [*ids, tokenizer.eos_token_id], [*labels, tokenizer.eos_token_id]


def learn(
    model: PreTrainedModel,
    examples: Sequence[Example],
    settings: WarmStart,
    pad_token_id: int,
    measure: Callable[[], float],
    on_step: Callable[[int, int | None, float], None],
) -> float | None:
    """Learn until the target accuracy is reached, then let the learning rate fall to zero.

    Args:
        model: Is trained in place.
        examples: What to learn.
        settings: How.
        pad_token_id: Fills up rows; never learned.
        measure: Returns the model's accuracy now.
        on_step: Called with the step's number, the number of steps in all once it is known, and the
            step's loss in nats per token.

    Returns:
        The accuracy at the end, or None if the target was not reached in `max_steps`.
    """
    optimizers = _optimizers(model, settings.learning_rate)
    batches = _batches(examples, settings)
    decay_from: int | None = None
    for step in range(1, settings.max_steps + settings.decay_steps + 1):
        rate = settings.learning_rate * _share(step, decay_from, settings.decay_steps)
        loss = _loss(model, next(batches), pad_token_id)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
        end = None if decay_from is None else decay_from + settings.decay_steps
        on_step(step, end, loss.item())
        if step == end:
            return measure()
        if end is None and (step % settings.check_every == 0 or step == settings.max_steps):
            if measure() >= settings.target_accuracy:
                decay_from = step
            elif step == settings.max_steps:
                return None
    raise AssertionError("the loop ends by one of its returns")


def _optimizers(model: PreTrainedModel, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for embeddings and norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        Muon(matrices, lr=learning_rate),
        torch.optim.AdamW(rest, lr=learning_rate, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def _batches(examples: Sequence[Example], settings: WarmStart) -> Iterator[list[Example]]:
    """Yield batches forever, in another order each time through."""
    order_random = random.Random(f"warm start {settings.seed}")
    order: list[int] = []
    while True:
        if len(order) < settings.batch_size:
            order = order_random.sample(range(len(examples)), len(examples))
        yield [examples[order.pop()] for _ in range(settings.batch_size)]


def _share(step: int, decay_from: int | None, decay_steps: int) -> float:
    """Return the share of the learning rate: up, level, then down to zero in a straight line."""
    if decay_from is None:
        return min(1.0, step / _RISE)
    return 1 - (step - 1 - decay_from) / decay_steps


def _loss(model: PreTrainedModel, batch: Sequence[Example], pad_token_id: int) -> Tensor:
    model.train()
    ids, labels = _pad(batch, pad_token_id)
    # Padding is on the right and never a label, so causal attention needs no mask.
    logits = model(input_ids=ids, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_IGNORED
    )


def _pad(batch: Sequence[tuple[list[int], list[int]]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    width = max(len(ids) for ids, _ in batch)
    ids = torch.tensor([i + [pad_token_id] * (width - len(i)) for i, _ in batch])
    labels = torch.tensor([row + [_IGNORED] * (width - len(row)) for _, row in batch])
    return ids, labels
