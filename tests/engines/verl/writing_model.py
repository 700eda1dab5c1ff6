"""A model of 27 thousand parameters that writes programs, made in seconds."""

from __future__ import annotations

import random
from pathlib import Path

import torch

from ctpo.tasks import generate
from ctpo.training import supervised, teacher, tiny
from ctpo.training.recipe import TinyModel

SIZE = TinyModel(
    hidden_size=32,
    layers=2,
    heads=2,
    key_value_heads=1,
    head_size=16,
    intermediate_size=64,
    vocabulary=256,
)
_STEPS, _BATCH, _RATE = 200, 8, 0.02


def save_writing_model(directory: Path) -> None:
    """Teach the form of an episode: a program in a fence, an answer in a box, rarely the right one.

    Args:
        directory: Gets the model and its tokenizer.
    """
    transcripts = teacher.demonstrations(generate(400, seed=0), seed=0)
    texts = [t.messages[-1]["content"] + "\n" + t.text for t in transcripts]
    tokenizer = tiny.build_tokenizer(texts, SIZE.vocabulary)
    model = tiny.build_model(SIZE, tokenizer, seed=0)
    examples = [supervised.encode(tokenizer, transcript) for transcript in transcripts]
    optimizers = supervised._optimizers(model, _RATE)
    order = random.Random(0)
    for step in range(_STEPS):
        batch = order.sample(examples, _BATCH)
        supervised._loss(model, batch, tokenizer.pad_token_id).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = _RATE * min(1.0, (step + 1) / 20) * (1 - step / _STEPS)
            optimizer.step()
            optimizer.zero_grad()
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
