"""verl's own training worker inside the test's process: FSDP2, fp32."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from tests.engines.verl.cpu import platform as _platform  # noqa: F401 – verl must find the CPU first

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def training_worker(
    model: Path,
    actor: dict[str, Any] | None = None,
    *,
    packed: bool = True,
    rank: int = 0,
    ranks: int = 1,
    meeting: Path | None = None,
) -> Iterator[Any]:
    """Start a `TrainingWorker` whose loss is verl's `ppo_loss`; tear it down at the end.

    Args:
        model: Directory of a model and its tokenizer.
        actor: Overrides of verl's `actor_rollout_ref.actor`, as `{"policy_loss.loss_mode": ...}`.
        packed: Whether the model reads one row without padding (`use_remove_padding`).
        rank: Of this process among `ranks`.
        ranks: Number of processes; all start a worker.
        meeting: A file in an existing directory, where the ranks meet; need not be given for one.
    """
    from hydra import compose, initialize_config_module
    from verl.utils.config import omega_conf_to_dataclass

    prefix = "actor_rollout_ref"
    overrides = {
        f"{prefix}.model.path": model,
        f"+{prefix}.model.override_config.attn_implementation": "sdpa",
        f"{prefix}.model.use_remove_padding": packed,
        f"{prefix}.model.enable_gradient_checkpointing": False,
        f"{prefix}.actor.strategy": "fsdp2",
        f"{prefix}.actor.ppo_micro_batch_size_per_gpu": 2,
        f"{prefix}.actor.fsdp_config.use_torch_compile": False,
        f"{prefix}.actor.use_torch_compile": False,
        f"+{prefix}.actor.fsdp_config.mixed_precision.param_dtype": "fp32",
    } | {f"{prefix}.actor.{key}": value for key, value in (actor or {}).items()}
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", [f"{key}={value}" for key, value in overrides.items()])
    actor_config = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    model_config = omega_conf_to_dataclass(config.actor_rollout_ref.model)
    with tempfile.TemporaryDirectory() as own:
        world = {
            "RANK": str(rank),
            "WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "",
            "MASTER_PORT": "",
            # A file, since a port that is free now can be taken when the group forms.
            "DIST_INIT_METHOD": f"file://{meeting or Path(own, 'meeting')}",
        }
        with mock.patch.dict(os.environ, world):
            yield from _running(actor_config, model_config)


def _running(actor_config: Any, model_config: Any) -> Iterator[Any]:
    import torch
    from verl.workers.config import TrainingWorkerConfig
    from verl.workers.engine_workers import TrainingWorker
    from verl.workers.utils.losses import ppo_loss

    try:
        worker = TrainingWorker(
            TrainingWorkerConfig(
                model_type="language_model",
                model_config=model_config,
                engine_config=actor_config.engine,
                optimizer_config=actor_config.optim,
                checkpoint_config=actor_config.checkpoint,
            )
        )
        # What verl's `ActorRolloutRefWorker` sets.
        engine = worker.engine_config
        engine.use_dynamic_bsz = actor_config.use_dynamic_bsz
        engine.max_token_len_per_gpu = actor_config.ppo_max_token_len_per_gpu
        engine.micro_batch_size_per_gpu = actor_config.ppo_micro_batch_size_per_gpu
        worker.reset()
        worker.set_loss_fn(partial(ppo_loss, config=actor_config))
        yield worker
    finally:
        torch.distributed.destroy_process_group()
