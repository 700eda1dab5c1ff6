"""The process that trains one cell or makes one warm start: `python -m ctpo.studies.child`.

Its own process, because a run that is killed, or that takes a library down with it, must not end
the others; and because torch and the sandbox are then as they are under `ctpo train`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

_NICE = 10
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG
_FAILED = 1


def command(place: Path, cache: Path, *, warm: bool) -> list[str]:
    """Return the command line of a child.

    Args:
        place: Directory of the cell or the warm start, with `recipe.toml`.
        cache: Directory of warm starts.
        warm: Whether to make a warm start only.
    """
    kind = "warm-start" if warm else "run"
    return [sys.executable, "-P", "-m", __name__, str(place), str(cache), kind, str(os.getpid())]


def run_child(place: str, cache: str, warm: bool, started: list[subprocess.Popen[bytes]]) -> float:
    """Run a child to its end and record if it failed. This is also what a Ray task does.

    Args:
        place: As in `command`.
        cache: As in `command`.
        warm: As in `command`.
        started: Gets the process, for someone who wants to end it.

    Returns:
        Seconds it took.
    """
    # Not the module's: that is imported by the child before it can die with its parent.
    from ctpo.studies.directory import write_failure

    began = time.monotonic()
    directory = Path(place)
    with (directory / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            command(directory, Path(cache), warm=warm),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    started.append(process)
    code = process.wait()
    # An interrupt or a termination is somebody's wish; a kill may be the kernel's, out of memory.
    wished = (-signal.SIGINT, -signal.SIGTERM, 128 + signal.SIGINT, 128 + signal.SIGTERM)
    if code not in (0, _FAILED, *wished):
        ended = f"signal {-code} ended it" if code < 0 else f"it ended with {code}"
        write_failure(directory, f"{ended}; see {directory / 'log.txt'}")
    return time.monotonic() - began


def main() -> int:
    """Do what the command line says; returns the exit code."""
    place, cache, kind, parent = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != int(parent):
            return 128 + signal.SIGKILL  # it was gone before
    os.nice(_NICE)
    from ctpo.disk import locked
    from ctpo.studies.directory import open_run, write_failure
    from ctpo.training.recipe.loading import load_recipe

    directory = Path(place)
    # Held to the end of this process, however it comes: of two at one cell the second waits, and
    # then finds that it is done.
    with locked(directory, "lock", wait=True):
        try:
            if kind == "run":
                from ctpo.commands import tracked
                from ctpo.training.run import run

                opened = open_run(directory)
                with tracked(opened) as listener:
                    run(opened.recipe, opened, cache=Path(cache), listener=listener)
            else:
                from ctpo.training.policy import start_sandbox
                from ctpo.training.tiny.warm_start import warm_start

                recipe = load_recipe(str(directory / "recipe.toml"))
                with start_sandbox(recipe.sandbox) as sandbox:
                    warm_start(recipe, sandbox, Path(cache))
        except Exception as error:
            traceback.print_exc()
            write_failure(directory, f"{type(error).__name__}: {error}")
            return _FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
