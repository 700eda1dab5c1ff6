"""Tables of a run as directories of one file per batch, which Parquet readers take for one table.

A killed run leaves whole files, and resuming drops those beyond its checkpoint.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ctpo.disk import write_whole
from ctpo.objective import PositionStatistics

_NAME = re.compile(r"batch-(\d+)(?:-rank-\d+)?\.parquet")


def batch_file(batch: int, rank: int | None = None) -> str:
    """Return the name of a batch's file, or of one rank's part of it."""
    return f"batch-{batch:04d}" + ("" if rank is None else f"-rank-{rank}") + ".parquet"


def files_after(table: Path, batch: int) -> list[Path]:
    """Return the files of a table that are of later batches."""
    numbered = [(_NAME.fullmatch(file.name), file) for file in table.iterdir()]
    return [file for match, file in numbered if match and int(match.group(1)) > batch]


def write_positions(
    table: Path, positions: PositionStatistics, batch: int, rank: int | None = None
) -> None:
    """Write the statistics by position of one batch.

    Args:
        table: The directory.
        positions: The statistics. Are read back to the host.
        batch: Number of the batch, from 1.
        rank: Whose part of the batch it is, where ranks write one each; readers add them up.
    """
    columns: dict[str, list[Any]] = dict(positions.to_columns())
    rows = pa.table({"batch": [batch] * len(columns["tokens"])} | columns)
    write_whole(table / batch_file(batch, rank), lambda path: pq.write_table(rows, path))
