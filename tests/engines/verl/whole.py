"""Real runs of verl on this machine's processor: `ctpo train`, or verl's `main_ppo` by itself."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).parents[3]
CTPO = Path(sys.executable).parent / "ctpo"
PATIENCE = 900.0
"""Seconds after which a run is given up; on two idle cores one takes about a minute."""

ACTOR, ROLLOUT, MODEL = (f"actor_rollout_ref.{part}" for part in ("actor", "rollout", "model"))


def overrides(ranks: int) -> list[str]:
    """verl's settings for `ranks` data-parallel ranks on a processor, as its command line has them.

    They are those that a recipe does not decide.
    """
    return [
        "trainer.device=cpu",
        "ray_kwargs.ray_init.num_cpus=32",  # bundles of verl's take ten each
        f"+ray_kwargs.ray_init.num_gpus={ranks}",
        "+ray_kwargs.ray_init.include_dashboard=False",
        "+ray_kwargs.ray_init.object_store_memory=200000000",
        "transfer_queue.backend.SimpleStorage.num_data_storage_units=1",
        f"{ACTOR}.use_torch_compile=False",
        f"{ACTOR}.fsdp_config.use_torch_compile=False",
        "actor_rollout_ref.ref.fsdp_config.use_torch_compile=False",
        f"{ROLLOUT}.free_cache_engine=False",
        "data.dataloader_num_workers=0",
    ]


def recipe(model: Path, *, ranks: int, changes: Mapping[str, Mapping[str, object]]) -> str:
    """Return a recipe for verl on a processor, as TOML.

    Args:
        model: The policy's directory.
        ranks: Data-parallel ranks, which one generation server serves.
        changes: What it sets, by section.
    """
    sections: dict[str, dict[str, object]] = {
        "model": {"path": str(model)},
        "optimization": {"schedule": "constant", "warmup_fraction": 0.0},
        "verl": {
            "gpus_per_node": ranks,
            "rollout_engine": "transformers",
            "tensor_parallel": ranks,
            "max_prompt_tokens": 64,
            "packed": False,
            "workers": 1,
            "overrides": overrides(ranks),
        },
    }
    for name, values in changes.items():
        sections[name] = {**sections.get(name, {}), **values}
    lines = ['name = "whole"', 'engine = "verl"', "threads = 1"]
    for name, values in sections.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def environment(*modules: str, **changes: str) -> dict[str, str]:
    """Return what verl's processes need of the environment to find a CPU; Ray hands it on.

    Args:
        *modules: What they import besides.
        **changes: Further variables.
    """
    return os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "VERL_USE_EXTERNAL_MODULES": ",".join(["tests.engines.verl.cpu", *modules]),
        "VERL_USE_EXTERNAL_PLUGINS": "auto",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_worker_niceness": "0",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        **changes,
    }


@contextlib.contextmanager
def started(
    command: Sequence[object], log: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program that starts Ray; at the end nothing of either is left.

    Args:
        command: The program.
        log: What it prints is appended here.
        environment: Its whole environment.
    """
    # Named in the environment of every process of this run and of no other. Short, since Ray puts
    # sockets into it.
    ray_directory = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=log.parent,
            env=dict(environment) | {"RAY_TMPDIR": ray_directory},
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            kill(process, ray_directory)
            shutil.rmtree(ray_directory, ignore_errors=True)


def finished(
    command: Sequence[object], log: Path, environment: Mapping[str, str], *, code: int = 0
) -> str:
    """Run a program to its end and return what it printed.

    Raises:
        AssertionError: It ended with another code; shows the end of what it printed.
    """
    with started(command, log, environment) as process:
        ended = process.wait(PATIENCE)
    text = log.read_text(errors="replace")
    assert ended == code, f"ended with {ended}:\n{text[-8000:]}"
    return text


def kill(process: subprocess.Popen[bytes], ray_directory: str) -> None:
    """Kill a program and whatever was started by it, all at once."""
    ours = [p for p in psutil.process_iter() if _belongs(p, ray_directory)]
    for one in ours:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGKILL)
    process.wait()
    psutil.wait_procs(ours, timeout=60)


def _belongs(process: psutil.Process, ray_directory: str) -> bool:
    try:
        return process.environ().get("RAY_TMPDIR") == ray_directory
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return False


def lines(file: Path) -> list[dict[str, Any]]:
    """Return the complete lines of a JSONL file, none if it is not there yet."""
    if not file.is_file():
        return []
    return [json.loads(x) for x in file.read_text().splitlines(keepends=True) if x.endswith("\n")]
