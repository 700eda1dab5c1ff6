"""A platform named `cpu` for verl, which knows accelerators only."""

from __future__ import annotations

import os
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import verl.utils.distributed as verl_distributed
from verl.plugin.platform import PlatformBase, PlatformRegistry, set_platform

from ctpo.engines.verl.beside_trl import hide_trl_from_verl

_CPU = torch.device("cpu")


def _device_module() -> types.ModuleType:
    """Return what verl uses of `torch.cuda`, for a device without a memory of its own."""
    module = types.ModuleType("tests.engines.verl.cpu.device")
    for name in ("Stream", "current_stream", "device_count", "stream", "synchronize"):
        setattr(module, name, getattr(torch.cpu, name))
    nothing: dict[str, Any] = {
        "is_available": lambda: False,  # verl then asks for no memory statistics
        "get_device_name": lambda *_: "CPU",
        "set_device": lambda *_: None,
        "empty_cache": lambda: None,
        "max_memory_allocated": lambda *_: 0,
        "max_memory_reserved": lambda *_: 0,
        "memory_allocated": lambda *_: 0,
        "memory_reserved": lambda *_: 0,
        "mem_get_info": lambda *_: (0, 0),
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "set_rng_state": lambda state, *_: torch.set_rng_state(state),
    }
    for name, function in nothing.items():
        setattr(module, name, function)
    return module


@PlatformRegistry.register("cpu")
class CpuPlatform(PlatformBase):
    """The host itself; Ray counts as GPUs what `ray_init.num_gpus` says."""

    _module = _device_module()

    @property
    def device_name(self) -> str:
        return "cpu"

    @property
    def vendor_name(self) -> str:
        return "cpu"

    @property
    def device_module(self) -> types.ModuleType:
        return self._module

    def is_available(self) -> bool:
        return True

    def current_device(self) -> torch.device:  # verl moves tensors to it; an index is CUDA's
        return _CPU

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None


def _unpinned(tensor: Any, device: Any = None) -> Any:
    return tensor


def install() -> None:
    """Make it verl's platform in this process, whatever verl has detected before."""
    # `_current_platform` is set by then when a module asked for it at its import.
    from verl.plugin.platform import platform_manager

    platform_manager._current_platform = None
    set_platform(CpuPlatform())
    # verl picks FSDP by device name; the class itself does not care which device it is.
    os.environ["VERL_ENGINE_DEVICE"] = "cuda"
    # Its default, "cpu:gloo,<device>:<backend>", names the CPU twice. In place, since other
    # modules import the function by name.
    initialize = verl_distributed.initialize_global_process_group_ray
    assert initialize.__defaults__ == (None, None), "verl's function has other arguments now"
    initialize.__defaults__ = (None, "cpu:gloo")
    # FSDP keeps a reference model in pinned memory, which there is none of without a GPU.
    torch.Tensor.pin_memory = _unpinned  # type: ignore[assignment]
    hide_trl_from_verl()
