"""A real `python -m verl.trainer.main_ppo` on this machine's processor."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).parents[3]
CPU_MODULE = "tests.engines.verl.cpu"

ACTOR, ROLLOUT, MODEL = (f"actor_rollout_ref.{part}" for part in ("actor", "rollout", "model"))


def machine(ranks: int) -> dict[str, Any]:
    """verl's settings for `ranks` data-parallel ranks on one processor."""
    return {
        "trainer.device": "cpu",
        "trainer.nnodes": 1,
        "trainer.n_gpus_per_node": ranks,
        "ray_kwargs.ray_init.num_cpus": 16,
        "+ray_kwargs.ray_init.num_gpus": ranks,
        "+ray_kwargs.ray_init.include_dashboard": False,
        "+ray_kwargs.ray_init.object_store_memory": 200 * 2**20,
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
        f"{ACTOR}.strategy": "fsdp2",
        f"{ACTOR}.use_torch_compile": False,
        f"{ACTOR}.fsdp_config.use_torch_compile": False,
        f"+{ACTOR}.fsdp_config.mixed_precision.param_dtype": "fp32",
        f"+{MODEL}.override_config.attn_implementation": "sdpa",
        f"{MODEL}.enable_gradient_checkpointing": False,
        f"{ROLLOUT}.name": "transformers",
        # One server for all ranks: the processor is one, too.
        f"{ROLLOUT}.tensor_model_parallel_size": ranks,
        f"{ROLLOUT}.free_cache_engine": False,
        f"{ROLLOUT}.dtype": "float32",
        f"{ROLLOUT}.agent.num_workers": 1,
        "reward.num_workers": 1,
        "data.dataloader_num_workers": 0,
        "trainer.logger": "[console,file]",
        "trainer.val_before_train": False,
    }


def environment(**changes: str) -> dict[str, str]:
    """What verl's processes need of the environment to find a CPU; Ray hands it on."""
    return os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "VERL_USE_EXTERNAL_MODULES": CPU_MODULE,
        "VERL_USE_EXTERNAL_PLUGINS": "auto",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_DEDUP_LOGS": "0",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        **changes,
    }


class WholeRun:
    """One start of verl's trainer and all processes that it starts.

    Args:
        directory: Gets `log.txt`, `metrics.jsonl` and what verl writes.
        settings: verl's, over those of `machine`.
        ranks: Data-parallel ranks.
        changes: Of the environment.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, Any],
        ranks: int = 1,
        changes: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.log = directory / "log.txt"
        self.metrics_file = directory / "metrics.jsonl"
        all_settings = machine(ranks) | dict(settings)
        self._arguments = [f"{key}={_literal(value)}" for key, value in all_settings.items()]
        self._environment = environment(
            VERL_FILE_LOGGER_PATH=str(self.metrics_file), **(changes or {})
        )

    @contextlib.contextmanager
    def started(self) -> Iterator[subprocess.Popen[bytes]]:
        """Start it; at the end nothing of it is left."""
        # Ray's socket paths must be short.
        ray_directory = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "verl.trainer.main_ppo", *self._arguments],
                cwd=self.directory,
                env=self._environment | {"RAY_TMPDIR": ray_directory},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                yield process
            finally:
                _end(process, ray_directory)
                shutil.rmtree(ray_directory, ignore_errors=True)

    def finish(self, timeout: float = 540) -> str:
        """Run to the end and return what was printed.

        Raises:
            AssertionError: It failed, with the end of its log.
        """
        with self.started() as process:
            code = process.wait(timeout)
        text = self.log.read_text()
        assert code == 0, f"verl ended with {code}:\n{text[-6000:]}"
        return text

    def metrics(self) -> list[dict[str, Any]]:
        """Return verl's metrics, one dictionary per step, with the step itself."""
        lines = [json.loads(line) for line in self.metrics_file.read_text().splitlines()]
        return [line["data"] | {"step": line["step"]} for line in lines]


def _literal(value: object) -> object:
    return "null" if value is None else value


def _end(process: subprocess.Popen[bytes], ray_directory: str) -> None:
    """Kill the driver and whatever belongs to its Ray, by the directory that is its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    ours = [p for p in psutil.process_iter() if _belongs(p, ray_directory)]
    for one in ours:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(ours, timeout=30)


def _belongs(process: psutil.Process, ray_directory: str) -> bool:
    try:
        return process.environ().get("RAY_TMPDIR") == ray_directory
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return False
