"""Runs in forked processes that are ended at moments counted in file operations, not in seconds."""

import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from ctpo.training.listening import Quiet
from ctpo.training.recipe.loading import load_recipe
from ctpo.training.run import run
from ctpo.training.run_directory import RunDirectory

SMALL = [
    "model.tiny.hidden_size=32",
    "model.tiny.layers=1",
    "model.tiny.intermediate_size=32",
    "warm_start.problems=300",
    "warm_start.transcripts=300",
    "warm_start.target_accuracy=0.0",
    "warm_start.check_every=20",
    "warm_start.decay_steps=10",
    "data.train_problems=35",
    "data.held_out_problems=7",
    "rollout.prompts_per_batch=2",
    "rollout.responses_per_prompt=2",
    "rollout.max_response_tokens=40",
    "optimization.batches=4",
    "optimization.updates_per_batch=2",
    "optimization.micro_batch=2",
    "optimization.checkpoint_every=1",
    "evaluation.samples_per_problem=1",
    "evaluation.every=2",
]
_RAISED = "raised "
_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


@dataclass
class Ended:
    """How a child ended: exit code, -n of signal n, and what it raised or wrote to stderr."""

    code: int
    said: str

    @property
    def raised(self) -> str:
        """The error, without what was logged before it and its traces."""
        lines = [line for line in self.said.splitlines() if line.startswith(_RAISED)]
        return lines[0].removeprefix(_RAISED) if lines else ""


def child(work: Callable[[], object]) -> Ended:
    """Do something in a process of its own, forked so that nothing is imported again."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            # Whoever starts the tests in the background, or under nohup, has some ignored.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            os.dup2(writing, 2)
            sys.stderr = os.fdopen(2, "w", closefd=False)
            logging.basicConfig(stream=sys.stderr, format="%(message)s", force=True)
            work()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except KeyboardInterrupt:
            code = 130
        except BaseException as error:
            print(f"{_RAISED}{type(error).__name__}: {error}", file=sys.stderr)
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as pipe:
        said = pipe.read()
    return Ended(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said)


def counted(root: Path, at: int | None = None) -> Callable[[], int]:
    """Count what happens to files below a directory, and die by SIGKILL before number `at`.

    The hook cannot be taken back: call it in a child.
    """
    number = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal number
        if event in _EVENTS and str(arguments[0]).startswith(str(root)):
            number += 1
            if number == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return lambda: number


class Struck(Quiet):
    """A listener in whose phase something happens at a step."""

    def __init__(self, phase: str, step: int, strike: Callable[[], object]) -> None:
        self._wanted, self._step, self._strike = phase, step, strike
        self._now = ""

    def phase(self, name: str, total: int | None) -> None:
        self._now = name

    def progress(self, done: int, total: int | None = None, **numbers: float) -> None:
        if self._now.startswith(self._wanted) and done == self._step:
            self._strike()


def train(path: Path, cache: Path, *changes: str, listener: Quiet | None = None) -> None:
    """Begin a run, or go on with it."""
    if (path / "recipe.toml").is_file():
        directory = RunDirectory.open(path)
    else:
        directory = RunDirectory.create(path, load_recipe("tiny", [*SMALL, *changes]))
    run(directory.recipe, directory, cache=cache, listener=listener)


def content(path: Path) -> dict[str, object]:
    """Everything of a run that must not depend on what happened on the way."""
    found: dict[str, object] = {
        "metrics": [json.loads(line) for line in (path / "metrics.jsonl").open()]
    }
    for table in ("positions.parquet", "trajectories.parquet", "transcripts.parquet"):
        found[table] = pq.read_table(path / table).to_pylist()
    for folder in ("evaluations", "model"):
        files = sorted(file for file in (path / folder).rglob("*") if file.is_file())
        found[folder] = {file.name: file.read_bytes() for file in files}
    return found
