"""What this machine can and cannot do, in words."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ctpo.engines.adapters import ADAPTERS, Adapter
from ctpo.sandbox import Sandbox, SandboxUnavailable, probe

if TYPE_CHECKING:
    from packaging.requirements import Requirement

Verdict = Literal["good", "limited", "bad"]
Engine = Literal["trl", "verl"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: What it is.
        verdict: `good`, `limited` (something cannot be done here) or `bad` (training cannot run).
        words: What was found and, where something is missing, what to do.
    """

    topic: str
    verdict: Verdict
    words: str


def examine(engine: Engine | None = None) -> list[Finding]:
    """Look at the sandbox, the processors, the training engines and their plug-ins.

    Args:
        engine: Look at what this one needs, and closer; None for a look at all.
    """
    machine = [_sandbox(), _gpu()]
    if engine == "trl":
        return [*machine, _trl(), _vllm()]
    if engine == "verl":
        return [*machine, *_verl_in_use()]
    return [*machine, _trl(), _vllm(), _verl(), *map(_adapter, ADAPTERS)]


def _sandbox() -> Finding:
    try:
        protections = probe()
    except SandboxUnavailable as error:
        return Finding("sandbox", "bad", str(error))
    if protections.weak:
        return Finding(
            "sandbox",
            "bad",
            f"programs cannot be isolated here; training refuses unless sandbox.allow_weak is set\n"
            f"{protections}",
        )
    with Sandbox(workers=1) as sandbox:
        execution = sandbox.run("print(6 * 7)")
    if execution.stdout != "42\n":
        return Finding("sandbox", "bad", f"print(6 * 7) gave {execution}")
    return Finding(
        "sandbox", "good", f"programs run isolated, {execution.wall_seconds:.3f} s\n{protections}"
    )


def _gpu() -> Finding:
    if _version("torch") is None:
        return Finding("gpu", "limited", "torch is not installed; install ctpo[objective]")
    import torch

    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if names:
        return Finding("gpu", "good", ", ".join(names))
    return Finding(
        "gpu",
        "limited",
        f"none that torch {torch.__version__} can use: the tiny recipes run on "
        f"{torch.get_num_threads()} processor threads, larger models need a GPU",
    )


def _trl() -> Finding:
    installed = _version("trl")
    if installed is None:
        return Finding("trl", "bad", "not installed; install ctpo[train]")
    wanted = _our_requirement("trl")
    if not wanted.specifier.contains(installed):
        return Finding(
            "trl",
            "bad",
            f"{installed} is installed, {wanted.specifier} was tested; "
            "its trainer's inside differs from version to version",
        )
    try:
        from ctpo.engines.trl import CTPOTrainer
    except Exception as error:
        return Finding("trl", "bad", f"{installed} is installed, but the plug-in fails: {error!r}")
    return Finding("trl", "good", f"{installed}, plug-in loaded: {CTPOTrainer.__name__}")


def _vllm() -> Finding:
    installed = _version("vllm")
    if installed is None:
        return Finding(
            "vllm",
            "limited",
            "not installed: recipes with a [vllm] section cannot run; install ctpo[vllm]",
        )
    import torch

    if not torch.cuda.is_available():
        return Finding("vllm", "limited", f"{installed}, but there is no GPU for it")
    return Finding("vllm", "good", installed)


def _verl() -> Finding:
    installed = _version("verl")
    if installed is None:
        return Finding(
            "verl",
            "limited",
            "not installed: no training on clusters; install ctpo[verl] (Python 3.11 or 3.12)",
        )
    wanted = _our_requirement("verl").specifier
    if not wanted.contains(installed):
        return Finding("verl", "bad", f"{installed} is installed, {wanted} was tested")
    return Finding(
        "verl",
        "good",
        f"{installed} is installed; whether it loads the plug-in: ctpo doctor --engine verl",
    )


def _verl_in_use() -> list[Finding]:
    """Look where verl runs: a fresh process, and a Ray worker of every node."""
    version = _verl()
    if version.verdict != "good":
        return [Finding("verl", "bad", version.words)]
    from ctpo.engines.verl.check import plugin_loaded, plugin_loaded_in_workers

    places = [("verl, a fresh process", [plugin_loaded()])]
    places.append(("verl, a Ray worker", plugin_loaded_in_workers()))
    return [
        Finding(topic, "good" if found.loaded else "bad", found.words)
        for topic, several in places
        for found in several
    ]


def _adapter(adapter: Adapter) -> Finding:
    """Look at an engine that takes the loss; without it, training on TRL and verl goes on."""
    installed = adapter.installed()
    if installed is None:
        return Finding(
            adapter.engine, "limited", f"not installed; the loss was tested on {adapter.tested}"
        )
    words = f"{installed}; the loss was tested on {adapter.tested}"
    if (failure := adapter.failure()) is not None:
        return Finding(adapter.engine, "limited", f"{words}; it does not load: {failure}")
    return Finding(adapter.engine, "good", f"{words}; it loads")


def _our_requirement(name: str) -> Requirement:
    from packaging.requirements import Requirement

    requirements = [Requirement(text) for text in importlib.metadata.requires("ctpo") or []]
    return next(requirement for requirement in requirements if requirement.name == name)


def _version(name: str) -> str | None:
    if importlib.util.find_spec(name) is None:
        return None
    return importlib.metadata.version(name)
