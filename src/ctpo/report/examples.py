"""Transcripts of a run: with what the loss made of every token, where the run recorded it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from ctpo.report.reading import read_table

# A longer transcript says nothing more, and a page must stay small enough to open.
MAX_CHARACTERS = 6000
# |log r| from which a token has the first to the deepest colour, in nats.
SHADES = (0.01, 0.03, 0.1, 0.3, 1.0)

_COLUMNS = ["batch", "problem_id", "reward", "advantage", "finish_reason", "text", "turns"]
_OF_TOKENS = ["question", "updates", "tokens", "mask", "log_ratios", "clipped"]


@dataclass(frozen=True)
class Span:
    """A piece of text that looks the same: a token, or a whole turn of which no more is known.

    Attributes:
        text: What is read.
        look: Class names: `up1` to `up5` and `down1` to `down5` by how far log r is from 0, and
            `clipped`.
        title: Its numbers.
    """

    text: str
    look: str = ""
    title: str = ""


@dataclass(frozen=True)
class Part:
    """A stretch of a transcript by one author: `assistant`, `tool`, or `response` if unknown."""

    role: str
    spans: list[Span]


@dataclass(frozen=True)
class Example:
    """One response to show.

    Attributes:
        batch: The rollout batch it is from.
        problem_id: The problem answered.
        question: What was asked; empty where it was not recorded.
        reward: Its grade; None where there is none.
        advantage: What training made of it; None where there is none.
        finish_reason: Why it ended.
        updates: Updates of its batch that came before its own; None where it was not recorded.
        clipped: Tokens without gradient, of how many; None where it was not recorded.
        parts: The transcript.
        left_out: Characters cut off its end.
    """

    batch: int
    problem_id: str
    question: str
    reward: float | None
    advantage: float | None
    finish_reason: str
    updates: int | None
    clipped: tuple[int, int] | None
    parts: list[Part]
    left_out: int


def examples(run_dir: Path | str, per_batch: int = 3) -> list[Example]:
    """Return the transcripts that the run recorded with their tokens' ratios.

    Of a run that recorded none, as earlier versions and other engines do, they are picked from the
    trajectories of the first and the last batch: spread evenly over the batch's responses ordered
    by reward, so that good and bad ones are shown alike.

    Args:
        run_dir: A run directory.
        per_batch: How many to pick of each of the two batches.

    Returns:
        The examples, empty where there are neither transcripts nor trajectories.

    Raises:
        ReportError: A file cannot be read.
    """
    recorded = read_table(Path(run_dir) / "transcripts.parquet", _COLUMNS + _OF_TOKENS)
    if recorded is not None and recorded.num_rows:
        return [_example(row) for row in recorded.sort_by("batch").to_pylist()]
    file = Path(run_dir) / "trajectories.parquet"
    batches = read_table(file, ["batch"])
    if batches is None or not batches.num_rows:
        return []
    ends = pc.min_max(batches["batch"]).as_py()
    chosen = []
    for batch in sorted({ends["min"], ends["max"]}):
        table = read_table(file, _COLUMNS, filters=[("batch", "==", batch)])
        assert table is not None  # It was there a moment ago.
        rows = sorted(table.to_pylist(), key=_by_reward)
        chosen += [_example(rows[index]) for index in _spread(len(rows), per_batch)]
    return chosen


def _by_reward(row: dict[str, Any]) -> tuple[bool, float]:
    """Best first, those without a reward last."""
    reward = row.get("reward")
    return (reward is None, -(reward or 0.0))


def _spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` different indices, evenly spread from the first to the last."""
    steps = max(1, wanted - 1)
    return sorted({(count - 1) * step // steps for step in range(wanted)}) if count else []


def _example(row: dict[str, Any]) -> Example:
    parts: list[Part] = []
    room, left_out = MAX_CHARACTERS, 0
    for role, span in _tokens(row) if "tokens" in row else _turns(row):
        shown = span.text[:room]
        room -= len(shown)
        left_out += len(span.text) - len(shown)
        if shown:
            if not parts or parts[-1].role != role:
                parts.append(Part(role, []))
            parts[-1].spans.append(Span(shown, span.look, span.title))
    return Example(
        batch=row["batch"],
        problem_id=str(row.get("problem_id", "")),
        question=row.get("question") or "",
        reward=row.get("reward"),
        advantage=row.get("advantage"),
        finish_reason=str(row.get("finish_reason", "")),
        updates=row.get("updates"),
        clipped=(sum(row["clipped"]), sum(row["mask"])) if "tokens" in row else None,
        parts=parts,
        left_out=left_out,
    )


def _turns(row: dict[str, Any]) -> Iterable[tuple[str, Span]]:
    turns = row.get("turns") or [{"role": "response", "text": row.get("text") or ""}]
    return ((turn["role"], Span(turn["text"])) for turn in turns)


def _tokens(row: dict[str, Any]) -> Iterator[tuple[str, Span]]:
    position, log_rho = 0, 0.0
    columns = (row[name] for name in ("tokens", "mask", "log_ratios", "clipped"))
    for text, policy, log_r, clipped in zip(*columns, strict=True):
        if not policy:
            yield "tool", Span(text)
            continue
        position, log_rho = position + 1, log_rho + log_r
        numbers = f"t = {position}, log r = {log_r + 0.0:.3g}, log ρ = {log_rho + 0.0:.3g}"
        look = look_of(log_r) + (" clipped" if clipped else "")
        yield "assistant", Span(text, look.strip(), numbers + (", clipped" if clipped else ""))


def look_of(log_r: float) -> str:
    """Return the class of a token's colour; nothing below the first shade."""
    shade = sum(abs(log_r) >= edge for edge in SHADES)
    return f"{'up' if log_r > 0 else 'down'}{shade}" if shade else ""
