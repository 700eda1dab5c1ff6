"""What the steps of `make gpu` share: results on disk, and clocks."""

from __future__ import annotations

import importlib.util
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch


class Missing(Exception):
    """What a step needs is not installed."""


def need(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise Missing(f"not installed: {', '.join(missing)}")


class Record:
    """A step's results on disk, whole at every moment."""

    def __init__(self, step: str, out: Path, device: str) -> None:
        card = torch.cuda.get_device_name() if device == "cuda" else "none: a rehearsal on a CPU"
        self.path = out / f"{step}.json"
        self.started = time.monotonic()
        self.values = {"step": step, "card": card, "torch": torch.__version__, "status": "cut off"}
        self.values["results"] = []
        self.write()

    def add(self, **result: object) -> None:
        """Add a row of results."""
        self.values["results"].append(result)
        self.write()

    def end(self, status: str, words: str = "") -> None:
        self.values |= {"status": status, "words": words}
        self.write()

    def write(self) -> None:
        self.values["seconds"] = round(time.monotonic() - self.started, 1)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".part")
        unfinished.write_text(json.dumps(self.values, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(self.path)


def clock(device: str, step: Callable[[], object]) -> float:
    """Return microseconds, on a GPU by its own clock."""
    if device == "cpu":
        started = time.perf_counter()
        step()
        return 1e6 * (time.perf_counter() - started)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return 1000 * start.elapsed_time(end)


def medians(device: str, steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Let the steps take turns; return the medians of their microseconds."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    warm = 3 if device == "cuda" else 0
    for turn in range(rounds + warm):
        for name, step in steps.items():
            taken = clock(device, step)
            if turn >= warm:
                times[name].append(taken)
    return {name: round(statistics.median(values), 1) for name, values in times.items()}
