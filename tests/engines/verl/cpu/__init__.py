"""verl on a machine without an accelerator, for tests: platform, training worker and rollout.

verl's own processes load it through `VERL_USE_EXTERNAL_MODULES=tests.engines.verl.cpu` with the
repository in `PYTHONPATH`; a test that runs verl inside its own process imports it.
"""

from tests.engines.verl.cpu import platform

platform.install()

from verl.workers.rollout.base import _ROLLOUT_REGISTRY  # noqa: E402 – after the platform
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry  # noqa: E402


def _replica() -> type[RolloutReplica]:
    from tests.engines.verl.cpu.rollout import TransformersReplica

    return TransformersReplica


RolloutReplicaRegistry.register("transformers", _replica)
_ROLLOUT_REGISTRY["transformers", "async"] = "tests.engines.verl.cpu.rollout.ServerAdapter"
