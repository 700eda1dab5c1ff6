"""Is the plug-in loaded where verl runs?

verl imports plug-ins by itself and hides what goes wrong: an import error is logged at DEBUG, and
a loss that is not there is missed at the first update only, after the first rollout. So this looks,
in a fresh process and in Ray's workers, and says in words what is wrong.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import traceback
from dataclasses import dataclass

_PLUGIN = "ctpo.engines.verl.plugin"
_MARK = "ctpo-plugin-check: "
_PATIENCE = 300.0
"""Seconds; importing verl takes five, on a busy network file system a minute."""


@dataclass(frozen=True)
class Found:
    """What was found in one place.

    Attributes:
        loaded: Whether verl knows all that is ours there.
        words: Where it was looked, what was found and, where something is wrong, what to do.
    """

    loaded: bool
    words: str


def plugin_loaded() -> Found:
    """Look in a fresh process that does nothing but import verl."""
    program = "import verl; from ctpo.engines.verl import check; check.report(check.here())"
    return _run("a fresh process", program)[0]


def plugin_loaded_in_workers() -> list[Found]:
    """Look in one Ray worker of every node.

    The cluster that verl would join is asked: that of `RAY_ADDRESS`, or one that runs here. Where
    there is none, Ray is started, small, and stopped again.
    """
    return _run("Ray", "from ctpo.engines.verl import check; check.report(*check.in_workers())")


def here() -> Found:
    """Look in this process, which has imported verl but nothing of the plug-in by itself."""
    import verl

    where = f"verl {verl.__version__}, ctpo from {_directory('ctpo')}, {sys.executable}"
    if _PLUGIN in sys.modules:
        for module in importlib.import_module(_PLUGIN).modules():
            try:
                importlib.import_module(module)
            except Exception:
                words = f"{module} cannot be imported with the plug-in in place ({where})"
                return Found(False, f"{words}:\n{traceback.format_exc()}")
        from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

        from ctpo.engines.verl.loss import policy_loss
        from ctpo.engines.verl.names import PRESET_OF

        missing = [n for n in PRESET_OF if POLICY_LOSS_REGISTRY.get(n) is not policy_loss]
        if missing:
            return Found(False, f"loaded, but {', '.join(missing)} were replaced since ({where})")
        return Found(True, f"{len(PRESET_OF)} losses registered ({where})")
    return Found(False, f"verl has not loaded the plug-in: {_why()} ({where})")


def in_workers() -> list[Found]:
    """Look in one worker of every node of the Ray cluster that this process starts or joins."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # As verl does; Ray's hook for uv changes the working directory of workers.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        ray.init(address="auto", log_to_driver=False)
    except ConnectionError:
        if "RAY_ADDRESS" in os.environ:
            raise
        ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        answers = [
            ray.remote(_look_in_worker)
            .options(
                num_cpus=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
            )
            .remote()
            for node in nodes
        ]
        found = []
        for node, answer in zip(nodes, answers, strict=True):
            try:
                there = ray.get(answer, timeout=_PATIENCE)
            except Exception as error:  # ctpo or verl is missing there, or Ray cannot start workers
                there = Found(False, f"a worker could not look: {error}")
            found.append(Found(there.loaded, f"{node['NodeManagerHostname']}: {there.words}"))
        return found
    finally:
        ray.shutdown()


def report(*found: Found) -> None:
    """Print what was found for the process that asked."""
    print(_MARK + json.dumps([[one.loaded, one.words] for one in found]), flush=True)


def _look_in_worker() -> Found:
    importlib.import_module("verl")
    return here()


def _why() -> str:
    """Say why verl has not loaded the plug-in."""
    policy = os.environ.get("VERL_USE_EXTERNAL_PLUGINS", "auto").strip()
    if policy.lower() != "auto" and "ctpo" not in [name.strip() for name in policy.split(",")]:
        return (
            f"VERL_USE_EXTERNAL_PLUGINS is {policy!r}; leave it out, add 'ctpo' to it, or set "
            f"VERL_USE_EXTERNAL_MODULES={_PLUGIN}"
        )
    try:
        importlib.import_module(_PLUGIN)
    except Exception:
        return f"importing {_PLUGIN} fails, which verl does not say:\n{traceback.format_exc()}"
    points = importlib.metadata.entry_points(group="verl.plugins")
    if "ctpo" not in points.names:
        return (
            "the installed ctpo does not announce it (entry point 'ctpo' in group "
            "'verl.plugins'); install ctpo again, or set "
            f"VERL_USE_EXTERNAL_MODULES={_PLUGIN}"
        )
    return (
        "it is announced and can be imported, so this verl does not look for plug-ins; set "
        f"VERL_USE_EXTERNAL_MODULES={_PLUGIN}"
    )


def _run(where: str, program: str) -> list[Found]:
    """Run a program that ends with `report` in a fresh process."""
    if importlib.util.find_spec("verl") is None:
        return [Found(False, "verl is not installed; install ctpo[verl] (Python 3.11 or 3.12)")]
    environment = {"RAY_USAGE_STATS_ENABLED": "0"} | os.environ
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            env=environment,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return [Found(False, f"{where} gave no answer within {_PATIENCE:.0f} s")]
    for line in done.stdout.splitlines():
        if line.startswith(_MARK):
            return [Found(*entry) for entry in json.loads(line.removeprefix(_MARK))]
    return [Found(False, f"{where} ended with {done.returncode}:\n{done.stderr.strip()[-2000:]}")]


def _directory(package: str) -> str:
    spec = importlib.util.find_spec(package)
    return ", ".join(spec.submodule_search_locations or []) if spec else "nowhere"
