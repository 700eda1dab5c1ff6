"""Where verl has no place for a plug-in: functions of its own, wrapped.

Each wrapper calls the original and changes nothing unless a loss of ours is in use. A verl whose
function has other parameters than those known here is refused.
"""

# ruff: noqa: ANN401 - types of verl's, which come without any

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import verl
from verl.trainer.ppo import rollout_corr_helper
from verl.trainer.ppo.v1 import replay_buffer
from verl.utils import config as verl_config
from verl.utils import tensordict_utils as tu
from verl.workers import engine_workers

from ctpo.engines.verl import batches, recording
from ctpo.engines.verl.episode_refusals import refuse_episode_settings
from ctpo.engines.verl.loss import step_metrics
from ctpo.engines.verl.refusals import refuse_and_warn


def install() -> None:
    """Wrap verl's functions. Doing so again changes nothing.

    Raises:
        RuntimeError: If this verl does not have them as they are known here.
    """
    worker, actor = engine_workers.TrainingWorker, engine_workers.ActorRolloutRefWorker
    _wrap(worker, "train_mini_batch", ["self", "data"], _recorded)
    _wrap(worker, "train_batch", ["self", "data"], _mini_batch)
    _wrap(actor, "update_weights", ["self", "global_steps", "mode"], _numbered)
    for buffer in (replay_buffer.ReplayBuffer, replay_buffer.ReplayBufferAsync):
        _wrap(
            buffer,
            "sample",
            ["self", "global_steps", "partition_id", "batch_size"],
            batches.watched,
        )
    _wrap(
        verl_config, "validate_config", ["config", "use_reference_policy", "use_critic"], _validated
    )
    _wrap(
        rollout_corr_helper,
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


def _wrap(owner: Any, name: str, parameters: list[str], around: Callable[..., Any]) -> None:
    original: Any = getattr(owner, name, None)
    if getattr(original, "_ctpo_wrapped", False):
        return
    found = original and list(inspect.signature(original).parameters)
    if found != parameters:
        raise RuntimeError(
            f"verl {verl.__version__} has {owner.__name__}.{name} with parameters {found}; the "
            f"plug-in knows it with {parameters}. Install verl>=0.9,<0.10"
        )
    wrapper: Any = around(original)
    functools.update_wrapper(wrapper, original)  # verl keeps how to dispatch it as an attribute
    wrapper._ctpo_wrapped = True
    setattr(owner, name, wrapper)


def _recorded(train_mini_batch: Callable[..., Any]) -> Callable[..., Any]:
    """Record the losses of a worker's mini-batches and add their metrics to its output."""

    def wrapper(self: Any, data: Any) -> Any:
        with recording.record() as record:
            output = train_mini_batch(self, data)
        if record.total is None:  # a critic's, or a loss of verl's
            return output
        first = record.before_updates
        assert first is not None, "every mini-batch ends"
        group = self.engine.get_data_parallel_group()
        total, before = recording.over_ranks([record.total, first], group)
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

    def wrapper(self: Any, data: Any) -> Any:
        output = train_batch(self, data)
        if (record := recording.current()) is not None:
            record.end_mini_batch()
        return output

    return wrapper


def _numbered(update_weights: Callable[..., Any]) -> Callable[..., Any]:
    """Take note of the training step that verl tells its workers."""

    async def wrapper(self: Any, global_steps: int | None = None, mode: str = "auto") -> Any:
        if global_steps is not None:
            recording.step_files.weights_are_of(global_steps)
        return await update_weights(self, global_steps, mode)

    return wrapper


def _validated(validate_config: Callable[..., None]) -> Callable[..., None]:
    """Refuse what would do nothing, or harm, with a loss of ours, before anything starts."""

    def wrapper(config: Any, use_reference_policy: bool, use_critic: bool) -> None:
        refuse_and_warn(config)
        refuse_episode_settings(config)
        validate_config(config, use_reference_policy, use_critic)

    return wrapper


def _with_prefix(weights: Callable[..., Any]) -> Callable[..., Any]:
    """Add the level `prefix` to verl's weights against the generator.

    w_t = min(∏_{j≤t} π_old(a_j|s_j) / μ(a_j|s_j), cap): the weight that goes with a cumulative
    ratio. It is verl's weight per token, of the running sum of log ratios, so that thresholds,
    normalisation and metrics are verl's.
    """

    def wrapper(
        log_ratio: torch.Tensor,
        response_mask: torch.Tensor,
        rollout_is: str = "token",
        rollout_is_threshold: str | float = 2.0,
        rollout_is_batch_normalize: bool = False,
    ) -> Any:
        if rollout_is == "prefix":
            log_ratio = torch.where(response_mask.bool(), log_ratio, 0.0).cumsum(dim=-1)
            rollout_is = "token"
        return weights(
            log_ratio, response_mask, rollout_is, rollout_is_threshold, rollout_is_batch_normalize
        )

    return wrapper
