"""Example transcripts from the first and the last batch of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from ctpo.report.reading import read_table

# A longer transcript says nothing more, and a page must stay small enough to open.
MAX_CHARACTERS = 6000

_COLUMNS = ["batch", "problem_id", "reward", "advantage", "finish_reason", "text", "turns"]


@dataclass(frozen=True)
class Part:
    """A stretch of a transcript by one author: `assistant`, `tool`, or `response` if unknown."""

    role: str
    text: str


@dataclass(frozen=True)
class Example:
    """One response to show.

    Attributes:
        batch: The rollout batch it is from.
        problem_id: The problem answered.
        reward: Its grade; None where there is none.
        advantage: What training made of it; None where there is none.
        finish_reason: Why it ended.
        parts: The transcript.
        left_out: Characters cut off its end.
    """

    batch: int
    problem_id: str
    reward: float | None
    advantage: float | None
    finish_reason: str
    parts: list[Part]
    left_out: int


def examples(run_dir: Path | str, per_batch: int = 3) -> list[Example]:
    """Pick transcripts of the first and the last batch.

    They are spread evenly over the batch's responses ordered by reward, so that good and bad ones
    are shown alike.

    Args:
        run_dir: A run directory.
        per_batch: How many to show of each of the two batches.

    Returns:
        The examples, empty where `trajectories.parquet` is absent or empty.

    Raises:
        ReportError: The file cannot be read.
    """
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
    turns = row.get("turns") or [{"role": "response", "text": row.get("text") or ""}]
    parts, room, left_out = [], MAX_CHARACTERS, 0
    for turn in turns:
        shown = turn["text"][:room]
        room -= len(shown)
        left_out += len(turn["text"]) - len(shown)
        if shown:
            parts.append(Part(turn["role"], shown))
    return Example(
        batch=row["batch"],
        problem_id=str(row.get("problem_id", "")),
        reward=row.get("reward"),
        advantage=row.get("advantage"),
        finish_reason=str(row.get("finish_reason", "")),
        parts=parts,
        left_out=left_out,
    )
