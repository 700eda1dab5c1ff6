"""verl's checkpoints: which is whole, since verl goes on from the newest or fails."""

from __future__ import annotations

import zipfile
from pathlib import Path

from ctpo.disk import write_text
from ctpo.training.checkpoints import set_aside, warn_of_damage
from ctpo.training.verl.files import VerlFiles

_PREFIX = "global_step_"


def step_of(checkpoint: Path) -> int:
    """Return the batch that a checkpoint was written after."""
    return int(checkpoint.name.removeprefix(_PREFIX))


def newest_whole(files: VerlFiles) -> Path | None:
    """Return the checkpoint to go on from, or None where there is none.

    Where what verl takes for the newest is cut or gone, it is set aside and logged, and verl is
    told to take the newest that is whole.
    """
    newest = files.last_checkpoint()
    if newest is None or not (wrong := _damage(newest)):
        return newest
    others = [each for each in newest.parent.glob(f"{_PREFIX}[0-9]*") if not _damage(each)]
    checkpoint = max(others, key=step_of, default=None)
    if newest.is_dir():
        set_aside(newest)
    if checkpoint is None:
        files.newest.unlink()
    else:
        write_text(files.newest, str(step_of(checkpoint)))
    goes_on = "the beginning" if checkpoint is None else checkpoint.name
    warn_of_damage(newest.parent, f"{newest.name}: {wrong}", goes_on)
    return checkpoint


def _damage(checkpoint: Path) -> str | None:
    """Return which file is cut or gone, or None; torch's files end with a list of their parts."""
    actor = checkpoint / "actor"
    for file in (*sorted(actor.glob("*.pt")), checkpoint / "data.pt"):  # which verl writes last
        if not zipfile.is_zipfile(file):
            there = f"{file.stat().st_size:,} bytes are there" if file.is_file() else "it is gone"
            return f"{file.relative_to(checkpoint)} is not whole ({there})"
    return None if any(actor.glob("*.pt")) else "it has no weights"
