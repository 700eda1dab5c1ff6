"""Engines that take the loss: what each was tested on, and whether its adapter loads here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Adapter:
    """An engine that takes our loss as it is.

    Attributes:
        engine: What it is called, and its distribution.
        package: What it is imported as.
        tested: The versions that the adapter was run on.
        hook: `module:name` of the engine that the adapter needs.
        module: The adapter.
    """

    engine: str
    package: str
    tested: str
    hook: str
    module: str

    def installed(self) -> str | None:
        """Return the engine's version; "of unknown version" for a bare checkout; None without."""
        if importlib.util.find_spec(self.package) is None:
            return None
        try:
            return importlib.metadata.version(self.engine)
        except importlib.metadata.PackageNotFoundError:
            return "of unknown version"

    def failure(self) -> str | None:
        """Import adapter and hook in a fresh process, and return why that fails; None if not."""
        module, name = self.hook.split(":")
        code = f"import {self.module}; from {module} import {name}"
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        return None if found.returncode == 0 else found.stderr.strip().splitlines()[-1]


ADAPTERS = (
    Adapter(
        "skyrl",
        "skyrl",
        "0.3.0 and 0.4.0",
        "skyrl.backends.skyrl_train.utils.ppo_utils:PolicyLossRegistry",
        "ctpo.engines.skyrl",
    ),
    Adapter(
        "prime-rl",
        "prime_rl",
        "0.8.0 of August 2026",
        "prime_rl.trainer.rl.loss:setup_rl_loss_fn",
        "ctpo.engines.prime_rl",
    ),
    Adapter(
        "tinker",
        "tinker",
        "0.38.0",
        "tinker.lib.public_interfaces.custom_loss:trace_loss",
        "ctpo.engines.tinker",
    ),
    Adapter(
        "slime",
        "slime",
        "0.3.1 of August 2026",
        "slime.backends.megatron_utils.loss:get_log_probs_and_entropy",
        "ctpo.engines.slime",
    ),
    Adapter(
        "miles",
        "miles",
        "0.1.0 of August 2026",
        "miles.backends.training_utils.loss_hub.logit_processors:get_log_probs_and_entropy",
        "ctpo.engines.slime",
    ),
    Adapter(
        "nemo-rl",
        "nemo_rl",
        "0.6.0 of August 2026",
        "nemo_rl.algorithms.loss.loss_functions:ClippedPGLossFn",
        "ctpo.engines.nemo_rl",
    ),
    Adapter(
        "roll",
        "roll",
        "0.3.0 of August 2026",
        "roll.pipeline.rlvr.actor_worker:ActorWorker",
        "ctpo.engines.roll",
    ),
)
"""The engines besides TRL and verl, which recipes run on."""


@contextmanager
def installed(engine: str) -> Iterator[None]:
    """Say of an import that fails which engine is missing.

    Args:
        engine: What it is called in `ADAPTERS`.

    Raises:
        ModuleNotFoundError: It is not here, or not whole.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        (adapter,) = [each for each in ADAPTERS if each.engine == engine]
        raise ModuleNotFoundError(
            f"{adapter.module} needs {engine}, and there is no module {error.name!r}; install "
            f"{engine} as it says itself (tested: {adapter.tested})",
            name=error.name,
        ) from error
