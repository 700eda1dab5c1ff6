"""Runs at a glance: all of a folder, and one as it goes."""

from __future__ import annotations

from pathlib import Path

from ctpo.report.outcome import latest
from ctpo.report.reading import ReportError, Run, read_run

_BARS = "▁▂▃▄▅▆▇█"
# What is watched of the last batch: the key of `metrics.jsonl` and a word for it.
WATCHED = (
    ("reward/mean", "reward"),
    ("entropy", "entropy"),
    ("kl/k3", "KL"),
    ("ess", "ESS"),
    ("grad_norm", "gradient norm"),
    ("response/length", "length"),
    ("tool/failure_rate", "sandbox failures"),
)


def list_runs(folder: Path) -> list[tuple[Path, Run | ReportError]]:
    """Return the runs in a folder and in folders within it, by the time that they were begun.

    Returns:
        Directories, with what is in them or why it cannot be read.

    Raises:
        ReportError: There is no such folder.
    """
    if not folder.is_dir():
        raise ReportError(f"there is no folder {folder}")
    patterns = ("recipe.toml", "*/recipe.toml", "*/*/recipe.toml")
    recipes = [file for pattern in patterns for file in folder.glob(pattern)]
    begun = sorted((file.stat().st_mtime, file.parent) for file in recipes)
    return [(path, _read(path)) for _, path in begun]


def _read(path: Path) -> Run | ReportError:
    try:
        run = read_run(path, glance=True)
        _ = run.settings  # read only now
    except ReportError as error:
        return error
    return run


def progress(run: Run) -> list[tuple[str, str]]:
    """Say how far a run is and how its last batch was: a word and its value each."""
    wanted = run.settings.get("optimization.batches")
    lines = [("state", f"{run.state}, batch {run.batch}" + (f" of {wanted}" if wanted else ""))]
    for metric, word in WATCHED:
        _, values = run.series(metric)
        if len(values):
            lines.append((word, f"{values[-1] + 0.0:.3g}  {_spark([float(v) for v in values])}"))
    if (score := latest(run)) is not None:
        lines.append(("held-out", str(score)))
    return lines


def _spark(values: list[float], width: int = 16) -> str:
    """Draw the last values as bars of text."""
    shown = values[-width:]
    low, room = min(shown), max(shown) - min(shown)
    return "".join(_BARS[round((v - low) / room * (len(_BARS) - 1)) if room else 0] for v in shown)
