"""Where verl has no place for a plug-in: functions of its own, wrapped.

Each wrapper calls the original and changes nothing unless a loss, an episode or a reward of ours is
in use. A verl whose
function has other parameters than those known here is refused.
"""

# ruff: noqa: ANN401 - types of verl's, which come without any

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import verl
from wrapt import register_post_import_hook


class Wrapped(NamedTuple):
    """A function of verl and what is put around it.

    Attributes:
        owner: The class it is in; "" if it is in the module itself.
        name: Its name.
        parameters: Those it must have.
        around: Makes a wrapper of it.
    """

    owner: str
    name: str
    parameters: list[str]
    around: Callable[[Callable[..., Any]], Callable[..., Any]]


def install() -> None:
    """Wrap verl's functions as soon as their modules are imported; doing so again changes nothing.

    A module whose function is not as it is known here cannot be imported then: a RuntimeError says
    what is different.
    """
    for module in WRAPPED:
        register_post_import_hook(wrap, module)


def wrap(module: Any) -> None:
    """Wrap the functions of a module of verl.

    Raises:
        RuntimeError: If it does not have them as they are known here.
    """
    for owner_name, name, parameters, around in WRAPPED[module.__name__]:
        owner = getattr(module, owner_name, None) if owner_name else module
        original: Any = getattr(owner, name, None)
        if getattr(original, "_ctpo_wrapped", False):
            continue
        found = original and list(inspect.signature(original).parameters)
        if found != parameters:
            place = ".".join(part for part in (module.__name__, owner_name, name) if part)
            raise RuntimeError(
                f"verl {verl.__version__} has {place} with parameters {found}; the plug-in knows "
                f"it with {parameters}. Install verl>=0.9,<0.10"
            )
        wrapper: Any = around(original)
        functools.update_wrapper(wrapper, original)  # verl keeps how to dispatch it there
        wrapper._ctpo_wrapped = True
        setattr(owner, name, wrapper)


def _recorded(train_mini_batch: Callable[..., Any]) -> Callable[..., Any]:
    """Record the losses of a worker's mini-batches and add their metrics to its output."""
    from verl.utils import tensordict_utils as tu

    from ctpo.engines.verl import recording
    from ctpo.engines.verl.loss import step_metrics
    from ctpo.objective.statistics.steps import over_ranks

    def wrapper(self: Any, data: Any) -> Any:
        with recording.record() as record:
            output = train_mini_batch(self, data)
        if record.total is None:  # a critic's, or a loss of verl's
            return output
        first = record.before_updates
        assert first is not None, "every mini-batch ends"
        group = self.engine.get_data_parallel_group()
        total, before = over_ranks([record.total, first], group)
        if output is None:  # a rank that computes what another one hands back
            return output
        if record.positions is not None and self.engine.get_data_parallel_rank() == 0:
            recording.step_files.write(Path(record.positions), total)
        found = {name: [value] for name, value in step_metrics(total, before).items()}
        tu.assign_non_tensor_data(output, "metrics", tu.get(output, "metrics") | found)
        return output

    return wrapper


def _mini_batch(train_batch: Callable[..., Any]) -> Callable[..., Any]:
    """Tell the record where the first mini-batch ends."""
    from ctpo.engines.verl import recording

    def wrapper(self: Any, data: Any) -> Any:
        output = train_batch(self, data)
        if (record := recording.current()) is not None:
            record.end_mini_batch()
        return output

    return wrapper


def _numbered(update_weights: Callable[..., Any]) -> Callable[..., Any]:
    """Take note of the training step that verl tells its workers."""
    from ctpo.engines.verl import recording

    async def wrapper(self: Any, global_steps: int | None = None, mode: str = "auto") -> Any:
        if global_steps is not None:
            recording.step_files.weights_are_of(global_steps)
        return await update_weights(self, global_steps, mode)

    return wrapper


def _validated(validate_config: Callable[..., None]) -> Callable[..., None]:
    """Refuse what would do nothing, or harm, with a loss of ours, before anything starts."""

    def wrapper(config: Any, use_reference_policy: bool, use_critic: bool) -> None:
        from ctpo.engines.verl.episodes.refusals import refuse_episode_settings
        from ctpo.engines.verl.refusals import refuse_and_warn

        refuse_and_warn(config)
        refuse_episode_settings(config)
        validate_config(config, use_reference_policy, use_critic)

    return wrapper


def _with_prefix(weights: Callable[..., Any]) -> Callable[..., Any]:
    """Add the level `prefix` to verl's weights against the generator.

    The product is that of `objective.Mismatch`. To verl it is a weight per token, so that
    thresholds, normalisation and metrics are verl's.
    """
    from ctpo.objective.layout import Padded
    from ctpo.objective.mismatch import log_weights

    def wrapper(
        log_ratio: torch.Tensor,
        response_mask: torch.Tensor,
        rollout_is: str = "token",
        rollout_is_threshold: str | float = 2.0,
        rollout_is_batch_normalize: bool = False,
    ) -> Any:
        if rollout_is == "prefix":
            log_ratio = log_weights(log_ratio, Padded(response_mask.bool(), None), "prefix")
            rollout_is = "token"
        return weights(
            log_ratio, response_mask, rollout_is, rollout_is_threshold, rollout_is_batch_normalize
        )

    return wrapper


def _watched(sample: Callable[..., Any]) -> Callable[..., Any]:
    """Count what the trainer is about to train on; see `batches`."""
    wrapper: Callable[..., Any] = importlib.import_module("ctpo.engines.verl.batches").watched(
        sample
    )
    return wrapper


_SAMPLE = ["self", "global_steps", "partition_id", "batch_size"]

WRAPPED: dict[str, list[Wrapped]] = {
    "verl.utils.config": [
        Wrapped(
            "",
            "validate_config",
            ["config", "use_reference_policy", "use_critic"],
            _validated,
        )
    ],
    "verl.trainer.ppo.rollout_corr_helper": [
        Wrapped(
            "",
            "compute_rollout_correction_weights",
            [
                "log_ratio",
                "response_mask",
                "rollout_is",
                "rollout_is_threshold",
                "rollout_is_batch_normalize",
            ],
            _with_prefix,
        )
    ],
    "verl.trainer.ppo.v1.replay_buffer": [
        Wrapped("ReplayBuffer", "sample", _SAMPLE, _watched),
        Wrapped("ReplayBufferAsync", "sample", _SAMPLE, _watched),
    ],
    "verl.workers.engine_workers": [
        Wrapped("TrainingWorker", "train_mini_batch", ["self", "data"], _recorded),
        Wrapped("TrainingWorker", "train_batch", ["self", "data"], _mini_batch),
        Wrapped(
            "ActorRolloutRefWorker",
            "update_weights",
            ["self", "global_steps", "mode"],
            _numbered,
        ),
    ],
}
"""What is wrapped, by module of verl."""
