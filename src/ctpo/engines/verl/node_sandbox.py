"""One sandbox on each node of a Ray cluster, shared by all of the job's processes there."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ctpo.engines.verl.loop_settings import SandboxSettings
from ctpo.sandbox import Execution, Sandbox

logger = logging.getLogger(__name__)

# Every program waits in the sandbox's own queue, which is fair and knows its length.
_CALLS_AT_ONCE = 100_000
_ATTEMPTS, _FIRST_WAIT = 5, 0.25


class Holder:
    """The actor: holds a started sandbox. Ends with the job that asked for it."""

    def __init__(self, settings: SandboxSettings) -> None:
        self._sandbox = Sandbox(**dataclasses.asdict(settings))
        self._sandbox.start()

    async def run(self, code: str, flow: str) -> Execution:
        """Run a program; callers of different flows take turns."""
        return await self._sandbox.arun(code, flow=flow)

    async def statistics(self) -> Mapping[str, object]:
        """Return the sandbox's numbers; see `Sandbox.statistics`."""
        return await self._sandbox.statistics()


class NodeSandbox:
    """The sandbox of the node that this process runs on; started when first needed.

    Ray restarts it if its process dies. What was running then has failed, through no fault of its
    own, and may be tried again.

    Args:
        settings: How programs run. Processes with equal settings share one sandbox.
    """

    def __init__(self, settings: SandboxSettings) -> None:
        self._settings = settings
        self._handle: Any = None

    async def run(self, code: str) -> Execution:
        """Run a program. A sandbox that cannot be reached is a `sandbox-failure`."""
        flow = ray.get_runtime_context().get_worker_id()
        try:
            return await self._actor().run.remote(code, flow)
        except RayActorError as error:
            self._forget(error)
            return Execution.failed(_why(error), wall_seconds=0.0, queue_seconds=0.0)

    async def statistics(self) -> Mapping[str, Any]:
        """Return the sandbox's numbers.

        Raises:
            RayActorError: It cannot be reached.
        """
        for attempt in range(_ATTEMPTS):
            try:
                return await self._actor().statistics.remote()
            except RayActorError as error:
                self._forget(error)
                if attempt == _ATTEMPTS - 1:
                    raise
                await asyncio.sleep(_FIRST_WAIT * 2**attempt)
        raise AssertionError("unreachable")

    def _actor(self) -> Any:  # noqa: ANN401 - Ray makes a handle's methods as it goes
        if self._handle is None:
            node = ray.get_runtime_context().get_node_id()
            said = hashlib.sha256(repr(self._settings).encode()).hexdigest()[:8]
            # Not detached: it must not outlive the job, however the job ends.
            self._handle = (
                ray.remote(Holder)
                .options(
                    name=f"ctpo-sandbox-{node}-{said}",
                    get_if_exists=True,
                    num_cpus=0,
                    max_restarts=-1,
                    max_concurrency=_CALLS_AT_ONCE,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
                )
                .remote(self._settings)
            )
        return self._handle

    def _forget(self, error: RayActorError) -> None:
        logger.warning("the node's sandbox failed: %s", _why(error))
        if isinstance(error, ActorDiedError):  # for good, so another one must be made
            self._handle = None


def _why(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"the node's sandbox: {lines[-1].strip() if lines else type(error).__name__}"


_of_this_process: dict[SandboxSettings, NodeSandbox] = {}


def node_sandbox(settings: SandboxSettings) -> NodeSandbox:
    """Return this process's client of its node's sandbox."""
    return _of_this_process.setdefault(settings, NodeSandbox(settings))
