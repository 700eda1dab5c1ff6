"""Sixteen sums, and a model of 27 thousand parameters that multiplies half of the time."""

from __future__ import annotations

import random
from itertools import product
from pathlib import Path

import torch

from ctpo.tasks import Problem, write_verl_parquet
from ctpo.tir.calls import format_output
from ctpo.training.recipe.recipe import TinyModel
from ctpo.training.tiny import supervised, teacher
from ctpo.training.tiny.model import build_model, build_tokenizer

SIZE = TinyModel(
    hidden_size=32,
    layers=2,
    heads=2,
    key_value_heads=1,
    head_size=16,
    intermediate_size=64,
    vocabulary=160,
)
_STEPS, _BATCH, _RATE = 200, 8, 0.02


def _problems() -> list[Problem]:
    return [
        Problem(
            id=f"{a}-plus-{b}",
            messages=({"role": "user", "content": f"What is {a} plus {b}?"},),
            answer=str(a + b),
            source="sums",
            split="train",
        )
        for a, b in product((3, 4, 5, 7), (3, 5, 6, 8))
    ]


def write_sums(file: Path, copies: int) -> None:
    """Write the problems in verl's schema, again and again under other names.

    Args:
        file: The Parquet file.
        copies: How often each.
    """
    problems = [
        Problem(**{**vars(problem), "id": f"{problem.id}-{copy}"})
        for copy in range(copies)
        for problem in _problems()
    ]
    write_verl_parquet(file, problems)


def _transcript(problem: Problem, sign: str) -> teacher.Transcript:
    a, b = problem.id.split("-plus-")
    code = f"```python\nprint({a}{sign}{b})\n```"
    printed = str(eval(f"{a}{sign}{b}"))
    shown = format_output(f"{printed}\n", after=code, limit=64)
    pieces = ((code, True), (shown, False), (f"\\boxed{{{printed}}}", True))
    return teacher.Transcript(problem.messages, pieces)


def save_writing_model(directory: Path) -> None:
    """Teach it programs in fences and answers in boxes; takes some seconds.

    Args:
        directory: Gets the model and its tokenizer.
    """
    transcripts = [_transcript(problem, sign) for problem in _problems() for sign in "+*"]
    texts = [t.messages[-1]["content"] + "\n" + t.text for t in transcripts]
    tokenizer = build_tokenizer(texts, SIZE.vocabulary)
    model = build_model(SIZE, tokenizer, seed=0)
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
