"""Checkpoints that can be trusted: each lists its files and what was in them when it was whole."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path

from ctpo.disk import write_text

logger = logging.getLogger(__name__)

_LIST = "files.json"
_PREFIX = "checkpoint-"


def step_of(checkpoint: Path) -> int:
    """Return the optimizer steps that a checkpoint is at."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def seal(checkpoint: Path, keep: int | None) -> None:
    """Mark the newest checkpoint as whole, now that all its files are written.

    So many checkpoints are kept, this one included, or all of them; older ones are dropped.
    """
    content = {str(file.relative_to(checkpoint)): _digest(file) for file in _files(checkpoint)}
    write_text(checkpoint / _LIST, json.dumps(content, indent=2) + "\n")
    if keep is not None:
        for old in _newest_first(checkpoint.parent)[keep:]:
            shutil.rmtree(old)


def newest_whole(folder: Path) -> Path | None:
    """Return the newest checkpoint whose files are all as they were written, or None.

    Newer ones that are not are renamed, so that nothing takes them for checkpoints; what is wrong
    with them and from where the run goes on is logged.
    """
    damaged = []
    for checkpoint in _newest_first(folder):
        wrong = _damage(checkpoint)
        if wrong is None:
            break
        set_aside(checkpoint)
        damaged.append(f"{checkpoint.name}: {wrong}")
    else:
        checkpoint = None
    if damaged:
        goes_on = "the beginning" if checkpoint is None else f"{checkpoint.name}, the one before"
        warn_of_damage(folder, "; ".join(damaged), goes_on)
    return checkpoint


def set_aside(checkpoint: Path) -> None:
    """Rename a damaged checkpoint, so that nothing takes it for one."""
    aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
    shutil.rmtree(aside, ignore_errors=True)
    checkpoint.rename(aside)


def warn_of_damage(folder: Path, damaged: str, goes_on: str) -> None:
    """Log what was damaged, and from where the run goes on."""
    logger.warning(
        "damaged and set aside in %s: %s. The run goes on from %s; what was trained after that "
        "is lost and is trained again",
        folder,
        damaged,
        goes_on,
    )


def _newest_first(folder: Path) -> list[Path]:
    """Return the checkpoints that were finished; what a killed process left has no list."""
    found = [path for path in folder.glob(f"{_PREFIX}*") if (path / _LIST).is_file()]
    return sorted(found, key=step_of, reverse=True)


def _damage(checkpoint: Path) -> str | None:
    """Return which file is not as it was written, or None."""
    try:
        listed: dict[str, str] = json.loads((checkpoint / _LIST).read_text())
    except ValueError:
        return f"{_LIST} is no JSON"
    for name, digest in listed.items():
        file = checkpoint / name
        if not file.is_file():
            return f"{name} is missing"
        if _digest(file) != digest:
            return f"{name} is not what was written ({file.stat().st_size:,} bytes are there)"
    return None


def _files(checkpoint: Path) -> list[Path]:
    return sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != _LIST)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
