"""Where children run: on this machine, or as tasks on a Ray cluster."""

from __future__ import annotations

import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from ctpo.studies.child import run_child


class Pool(Protocol):
    """Runs children, `width` at a time."""

    width: int

    def submit(self, place: Path, cache: Path, *, warm: bool) -> Future[float]:
        """Return the future seconds of a child; see `run_child`."""
        ...

    def stop(self) -> None:
        """End what runs and start nothing more."""
        ...


class LocalPool:
    """Children of this process."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._threads = ThreadPoolExecutor(width)
        self._started: list[subprocess.Popen[bytes]] = []

    def submit(self, place: Path, cache: Path, *, warm: bool) -> Future[float]:
        """See `Pool`."""
        # A child dies with the thread that started it, which waits for it.
        return self._threads.submit(run_child, str(place), str(cache), warm, self._started)

    def stop(self) -> None:
        """See `Pool`."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._started:
            if process.poll() is None:
                process.terminate()
        self._threads.shutdown()


class RayPool:
    """Tasks of one processor each on a Ray cluster, whose machines share the study's directory.

    Args:
        address: The cluster's, or `local` to start one here.

    Raises:
        ValueError: Ray is not installed, or there is no cluster.
    """

    def __init__(self, address: str) -> None:
        try:
            import ray
        except ImportError:
            raise ValueError("--ray needs Ray, which comes with ctpo[verl]") from None
        # Only numbers pass through its object store.
        own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 80 << 20}
        try:
            ray.init(address, log_to_driver=False, **(own if address == "local" else {}))
        except (ConnectionError, RuntimeError) as error:
            raise ValueError(f"there is no Ray cluster at {address}: {error}") from None
        self._ray = ray
        self.width = int(ray.cluster_resources().get("CPU", 1))
        # A child that failed is recorded; a machine that was lost is another matter.
        self._task = ray.remote(num_cpus=1, max_retries=2)(run_child)

    def submit(self, place: Path, cache: Path, *, warm: bool) -> Future[float]:
        """See `Pool`."""
        future: Future[float] = self._task.remote(
            str(place.resolve()), str(cache.resolve()), warm, []
        ).future()
        return future

    def stop(self) -> None:
        """See `Pool`."""
        self._ray.shutdown()
