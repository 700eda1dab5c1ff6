"""Batches of verl's on disk, converted to what `ctpo analyze` reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from verl import DataProto

from ctpo.disk import check_parquet_name, write_whole

_LOGPROBS = ("log_probs", "old_log_probs", "rollout_log_probs")
_COLUMNS = (*_LOGPROBS, "response_mask", "advantages", "responses")


def write_log(dumps: Sequence[Path], log: Path) -> int:
    """Write the responses of saved batches to a Parquet file, in verl's own names.

    A saved batch is a pickle, and reading one runs what it holds: convert only what you saved.

    Args:
        dumps: Files of `DataProto.save_to_disk`, or of `torch.save` with its TensorDict.
        log: The file, which ends in `.parquet`; replaced if it exists.

    Returns:
        Number of responses.

    Raises:
        OSError: A file cannot be read or written.
        ValueError: A file holds neither, or no two of a response's log-probs; or the log ends
            otherwise.
    """
    check_parquet_name(log)
    rows: list[dict[str, Any]] = []
    for file in dumps:
        try:
            saved = (
                torch.load(file, map_location="cpu", weights_only=False)
                if _is_torchs(file)
                else DataProto.load_from_disk(file)
            )
        except OSError:
            raise
        except Exception as error:  # of a file that is no pickle, pickle raises nearly anything
            raise ValueError(
                f"{file} is no batch that save_to_disk or torch.save wrote whole: "
                f"{type(error).__name__}: {error}"
            ) from error
        batch = saved.batch if isinstance(saved, DataProto) else saved
        if not hasattr(batch, "keys"):
            raise ValueError(f"{file} holds a {type(saved).__name__}; it must be a DataProto")
        columns = {name: batch[name] for name in _COLUMNS if name in batch.keys()}
        if len(columns.keys() & _LOGPROBS) < 2:
            raise ValueError(
                f"{file} has {', '.join(map(str, batch.keys()))}; two of log_probs, old_log_probs "
                "and rollout_log_probs are needed: save the batch after old log-probs are computed"
            )
        # Nested tensors of verl's new trainer come apart as padded ones do: by responses.
        parts = {name: tensor.unbind() for name, tensor in columns.items()}
        rows += [
            {name: part[i].tolist() for name, part in parts.items()}
            for i in range(len(parts["old_log_probs" if "old_log_probs" in parts else "log_probs"]))
        ]
    write_whole(log, lambda aside: pq.write_table(pa.Table.from_pylist(rows), aside))
    return len(rows)


def _is_torchs(file: Path) -> bool:
    # A pickle may end with an archive of torch's, so that only the beginning tells.
    with file.open("rb") as opened:
        return opened.read(2) == b"PK"
