"""One sandbox on each node of a Ray cluster, shared by all of the job's processes there."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import logging
import time
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ctpo.engines.verl.episodes.settings import SandboxSettings
from ctpo.sandbox import Execution, Sandbox

logger = logging.getLogger(__name__)

# Every program waits in the sandbox's own queue, which is fair and knows its length.
_CALLS_AT_ONCE = 100_000
# A sandbox whose process died is back in a second or two; a crowded machine gets longer.
_PATIENCE_SECONDS, _WAIT_SECONDS = 600.0, 0.25


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
        self._healing: asyncio.Task[None] | None = None
        self._hopeless: str | None = None

    async def run(self, code: str) -> Execution:
        """Run a program.

        A sandbox that is lost is a `sandbox-failure`, which is returned when it is back, so that
        trying again makes sense. So is one that cannot be started, at once and from then on.
        """
        if self._hopeless is None:
            flow = ray.get_runtime_context().get_worker_id()
            try:
                return await self._actor().run.remote(code, flow)
            except RayActorError as error:
                why = _why(error)
                await self._heal(error)
        else:
            why = self._hopeless
        return Execution.failed(why, wall_seconds=0.0, queue_seconds=0.0)

    async def statistics(self) -> Mapping[str, Any]:
        """Return the sandbox's numbers.

        Raises:
            RayActorError: It cannot be reached.
        """
        return await self._actor().statistics.remote()

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

    async def _heal(self, error: RayActorError) -> None:
        """Wait until the sandbox is back; all who lost it wait together."""
        if self._healing is None or self._healing.done():
            self._healing = asyncio.create_task(self._come_back(error))
        await asyncio.shield(self._healing)

    async def _come_back(self, error: RayActorError) -> None:
        logger.warning("lost a node's sandbox: %s", _why(error))
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if isinstance(error, ActorDiedError):  # for good, so another one must be made
                if "creation task" in str(error):
                    self._hopeless = _why(error)
                    logger.error("no sandbox on this node: %s", self._hopeless)
                    return
                self._handle = None
            await asyncio.sleep(_WAIT_SECONDS)
            try:
                await self.statistics()
                return
            except RayActorError as again:
                error = again


def _why(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"the node's sandbox: {lines[-1].strip() if lines else type(error).__name__}"


_of_this_process: dict[SandboxSettings, NodeSandbox] = {}


def node_sandbox(settings: SandboxSettings) -> NodeSandbox:
    """Return this process's client of its node's sandbox."""
    return _of_this_process.setdefault(settings, NodeSandbox(settings))
