"""A run's metrics, evaluations and figures by position, sent on to trackers as they are written.

It reads the run directory, so it does not matter which engine trains, and the names are those of
`metrics.jsonl` everywhere.
"""

from __future__ import annotations

import importlib.util
import json
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ctpo.report import style
from ctpo.report.gallery import KINDS
from ctpo.report.reading import read_evaluations, read_run


class Tracker(Protocol):
    """Where numbers and images go; `step` is the batch of rollouts."""

    def log(self, values: dict[str, float], step: int) -> None:
        """Take numbers by name."""

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Take an image, [height, width, 3] bytes."""

    def close(self) -> None:
        """Write what is left."""


class _TensorBoard:
    def __init__(self, run: Path, name: str, config: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(run / "tensorboard"))
        self._writer.add_text("recipe", f"```\n{json.dumps(config, indent=2)}\n```", 0)

    def log(self, values: dict[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, run: Path, name: str, config: dict[str, Any]) -> None:
        import wandb

        place = run / "wandb_id.txt"  # by which a resumed run goes on in its own charts
        if not place.is_file():
            place.write_text(secrets.token_hex(8))
        self._image = wandb.Image
        self._run: Any = wandb.init(
            project=name,
            name=run.name,
            id=place.read_text(),
            dir=str(run),
            config=config,
            resume="allow",
        )

    def log(self, values: dict[str, float], step: int) -> None:
        self._run.log(values, step=step)

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        self._run.log({name: self._image(pixels)}, step=step)

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    def __init__(self, run: Path, name: str, config: dict[str, Any]) -> None:
        import trackio

        self._trackio: Any = trackio
        trackio.init(project=name, name=run.name, config=config, resume="allow")

    def log(self, values: dict[str, float], step: int) -> None:
        self._trackio.log(values, step=step)

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        self._trackio.log({name: self._trackio.Image(pixels)}, step=step)

    def close(self) -> None:
        self._trackio.finish()


_STEP = ("batch", "step")
_TRACKERS: dict[str, Callable[[Path, str, dict[str, Any]], Tracker]] = {
    "tensorboard": _TensorBoard,
    "trackio": _Trackio,
    "wandb": _Wandb,
}


def check_trackers(names: Sequence[str]) -> None:
    """Raise unless these trackers can be used here.

    Raises:
        ValueError: There is no such tracker, or its package is not installed.
    """
    for name in names:
        if name not in _TRACKERS:
            raise ValueError(f"report_to is {name!r}; it must be one of {', '.join(_TRACKERS)}")
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"report_to is {name!r}, which is not installed: pip install {name}")


class Tracking:
    """Follows a run directory; use it as a context manager.

    Args:
        run: The run directory. What it holds already is not sent again.
        names: Trackers.
        project: What runs of this kind are called.
        config: The recipe.

    Raises:
        ValueError: A tracker cannot be used here.
    """

    def __init__(
        self, run: Path, names: Sequence[str], project: str, config: dict[str, Any]
    ) -> None:
        check_trackers(names)
        self._path = run
        self._batch = max((row["batch"] for row in self._metrics()), default=0)
        self._known = set(read_evaluations(run))
        self._trackers: list[Tracker] = [_TRACKERS[name](run, project, config) for name in names]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.update()
        finally:
            for tracker in self._trackers:
                tracker.close()

    def update(self) -> None:
        """Send what has been written since the last time, and new figures with an evaluation."""
        if not self._trackers:
            return
        rows: dict[int, dict[str, float]] = {}
        evaluated = []
        for name, evaluation in read_evaluations(self._path).items():
            if name not in self._known:
                self._known.add(name)
                evaluated.append(evaluation.batch)
                rows[evaluation.batch] = {
                    f"evaluation/{decoding}": result.overall.mean
                    for decoding, result in evaluation.decodings.items()
                }
        for row in self._metrics():
            if row["batch"] > self._batch:
                self._batch = row["batch"]
                # The tracker's step is the batch; some keep the word to themselves.
                numbers = {k: float(v) for k, v in row.items() if v is not None and k not in _STEP}
                rows.setdefault(row["batch"], {}).update(numbers)
        for step in sorted(rows):  # some trackers never go back
            for tracker in self._trackers:
                tracker.log(rows[step], step)
        if any(batch > 0 for batch in evaluated):
            self._send_figures(max(self._batch, *evaluated))

    def _send_figures(self, step: int) -> None:
        run = read_run(self._path)
        for kind in KINDS:
            figure = kind.draw(run, style.WIDTH) if kind.needs == "positions.parquet" else None
            if figure is not None:
                canvas = FigureCanvasAgg(figure)
                canvas.draw()
                pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
                for tracker in self._trackers:
                    tracker.image(f"by-position/{kind.name}", pixels, step)

    def _metrics(self) -> list[dict[str, Any]]:
        file = self._path / "metrics.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]
