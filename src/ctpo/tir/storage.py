"""Trajectories on disk: one Parquet row each, as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ctpo.tir.trajectory import ToolResult, Trajectory, Turn

_FLOATS = pa.list_(pa.float32())

SCHEMA = pa.schema(
    [
        ("batch", pa.int32()),
        ("problem_id", pa.string()),
        ("source", pa.string()),
        ("reward", pa.float32()),
        ("advantage", pa.float32()),
        ("finish_reason", pa.string()),
        ("text", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("response_ids", pa.list_(pa.int32())),
        ("mask", pa.list_(pa.bool_())),
        ("sampler_logprobs", _FLOATS),
        ("old_logprobs", _FLOATS),
        (
            "turns",
            pa.list_(
                pa.struct(
                    [
                        ("role", pa.string()),
                        ("start", pa.int32()),
                        ("end", pa.int32()),
                        ("text", pa.string()),
                    ]
                )
            ),
        ),
        (
            "tool_results",
            pa.list_(
                pa.struct(
                    [
                        ("code", pa.string()),
                        ("status", pa.string()),
                        ("output", pa.string()),
                        ("failure", pa.string()),
                    ]
                )
            ),
        ),
    ]
)


def write_trajectories(path: Path, trajectories: Sequence[Trajectory], batch: int) -> None:
    """Write one batch of trajectories to a Parquet file.

    Args:
        path: The file; replaced if it exists.
        trajectories: What to write.
        batch: Number of the batch of rollouts, kept in a column.
    """
    rows: list[dict[str, Any]] = [
        asdict(trajectory) | {"text": trajectory.text, "batch": batch}
        for trajectory in trajectories
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), path)


def read_trajectories(path: Path) -> list[Trajectory]:
    """Read the trajectories of a file, or of a directory of files in the order of their names.

    Args:
        path: What `write_trajectories` wrote, or a directory of it.

    Raises:
        FileNotFoundError: There is nothing at `path`.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    return [_from_row(row) for file in files for row in pq.read_table(file).to_pylist()]


def _from_row(row: dict[str, Any]) -> Trajectory:
    fields = {key: value for key, value in row.items() if key not in ("batch", "text")}
    fields["turns"] = [Turn(**turn) for turn in row["turns"]]
    fields["tool_results"] = [ToolResult(**result) for result in row["tool_results"]]
    return Trajectory(**fields)
