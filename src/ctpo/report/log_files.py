"""Files of logged rollouts as trainers leave them, read row by row whatever their format."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ctpo.report.reading import ReportError

_ROWS_AT_ONCE = 256

# The values of a row by their columns' names: numbers, lists, or lists of lists for a whole batch.
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Log:
    """Logged rollouts on disk.

    Attributes:
        path: Where.
        columns: Names of the columns.
        rows: Returns the rows with the named columns; None where a row lacks one.
    """

    path: Path
    columns: Sequence[str]
    rows: Callable[[Sequence[str]], Iterator[Row]]


def open_log(path: Path) -> Log:
    """Open a file or directory of logged rollouts.

    Args:
        path: `.parquet`, `.jsonl`, `.json`, `.pt`, `.pth` or `.arrow`, a directory of files of one
            of these, or what `datasets.Dataset.save_to_disk` wrote.

    Raises:
        ReportError: Nothing is there, the format is none of these, or a file cannot be read.
    """
    if not path.exists():
        raise ReportError(f"there is no file {path}")
    if (path / "dataset_dict.json").is_file():
        try:
            splits = json.loads((path / "dataset_dict.json").read_text())["splits"]
            path / splits[0]
        except (ValueError, TypeError, LookupError):
            raise ReportError(f"{path / 'dataset_dict.json'} names no splits") from None
        if len(splits) > 1:
            raise ReportError(f"{path} holds several splits; name one, e.g. {path / splits[0]}")
        path = path / splits[0]
    # Beside its tables a directory may hold anything: state.json of save_to_disk, a README.md.
    is_data_set = (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    wanted = [".arrow"] if is_data_set else list(_READERS)
    files = [path]
    if path.is_dir():
        inside = sorted(path.iterdir())
        files = [file for file in inside if file.suffix in wanted and file.name[0] not in "._"]
    kinds = sorted({file.suffix for file in files})
    if len(kinds) != 1 or kinds[0] not in _READERS:
        held = ", ".join(kinds) or "none"
        found = f"holds {held}" if path.is_dir() else f"has the ending {kinds[0]!r}"
        raise ReportError(
            f"{path} {found}; it must be a file of one of these kinds, or a directory with files "
            f"of one kind: {', '.join(_READERS)}"
        )
    try:
        return _READERS[kinds[0]](path, files)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ReportError(f"{path} cannot be read: {error}") from error


def _parquet(path: Path, files: list[Path]) -> Log:
    dataset = pq.ParquetDataset(files)

    def rows(columns: Sequence[str]) -> Iterator[Row]:
        for fragment in dataset.fragments:
            for batch in fragment.to_batches(columns=list(columns), batch_size=_ROWS_AT_ONCE):
                yield from batch.to_pylist()

    return Log(path, dataset.schema.names, rows)


def _arrow(path: Path, files: list[Path]) -> Log:
    with pa.ipc.open_stream(files[0]) as stream:
        names = stream.schema.names

    def rows(columns: Sequence[str]) -> Iterator[Row]:
        for file in files:
            with pa.ipc.open_stream(file) as opened:
                for batch in opened:
                    yield from batch.select(list(columns)).to_pylist()

    return Log(path, names, rows)


def _lines(path: Path, files: list[Path]) -> Log:
    def rows(columns: Sequence[str]) -> Iterator[Row]:
        for file in files:
            with file.open(encoding="utf-8-sig") as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        where = f"{file}, line {number}"
                        try:
                            row = json.loads(line)
                        except ValueError as error:
                            raise ReportError(f"{where} is not JSON: {error}") from error
                        yield from _mappings(row, columns, where)

    return Log(path, _names(rows([])), rows)


def _whole(path: Path, files: list[Path]) -> Log:
    """Files that hold a mapping of columns, or a list of mappings, a response or a batch each."""
    contents = {file: _tensors(file) if file.suffix != ".json" else _json(file) for file in files}

    def rows(columns: Sequence[str]) -> Iterator[Row]:
        for file, content in contents.items():
            yield from _mappings(content, columns, str(file))

    return Log(path, _names(rows([])), rows)


def _names(rows: Iterator[Row]) -> list[str]:
    """Return the columns that any row has: one that lacks some of them is then refused by name."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _json(file: Path) -> Any:  # noqa: ANN401
    return json.loads(file.read_text(encoding="utf-8-sig"))


def _tensors(file: Path) -> Any:  # noqa: ANN401
    if not zipfile.is_zipfile(file):
        raise ReportError(
            f"{file} is no file of torch.save's. A pickle runs code when it is read, so it is not "
            "read here: `ctpo verl log` converts a DataProto that you saved yourself"
        )
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what its unpickler does
        raise ReportError(
            f"{file} holds more than tensors, lists, numbers and text, and reading that could run "
            "code. Save a dict of tensors, e.g. torch.save(dict(batch), ...); `ctpo verl log` "
            f"converts a TensorDict that you saved yourself. ({str(error).splitlines()[0]})"
        ) from error


def _mappings(content: Any, columns: Sequence[str], where: str) -> Iterator[Row]:  # noqa: ANN401
    """Yield rows; all of their columns if none are named."""
    for row in content if isinstance(content, list | tuple) else [content]:
        if not isinstance(row, Mapping):
            raise ReportError(f"{where}: is {row!r:.60}; it must be an object of named columns")
        values = {name: row.get(name) for name in columns or row}
        yield {k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in values.items()}


_READERS: dict[str, Callable[[Path, list[Path]], Log]] = {
    ".parquet": _parquet,
    ".jsonl": _lines,
    ".json": _whole,
    ".pt": _whole,
    ".pth": _whole,
    ".arrow": _arrow,
}
