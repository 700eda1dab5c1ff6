"""CTPO on ROLL: an actor worker for `actor_train.worker_cls`, around ROLL's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ctpo.engines.adapters import installed
from ctpo.engines.custom_loss import HOLES, TRUNCATED, CustomLoss, metrics, refuse

_CORRECTION = "it is a factor of ROLL's own ratio; weigh with mismatch_cap"
_OF_OTHERS = "it is a parameter of ROLL's own ratio; ours are given to ctpo.engines.roll.worker"
_PIPELINE: dict[str, tuple[tuple[object, ...], str]] = {
    "train_infer_correction.is_weight.enabled": ((False,), _CORRECTION),
    "importance_sampling": (("token",), _OF_OTHERS),
    "use_pg_clip_range": ((False,), _OF_OTHERS),
    "pg_clip": ((0.2,), _OF_OTHERS),
    "dual_clip_loss": ((False,), _OF_OTHERS),
    "actor_infer.generating_args.top_p": ((1.0, 1, None), TRUNCATED),
    "actor_infer.generating_args.top_k": ((0, -1, None), TRUNCATED),
}

_OLD = {
    "force_disable_old_logprobs_recompute": (
        (False,),
        "else ROLL takes for old log-probs those of the first time that a response is trained on, "
        "after the updates on the mini-batches before it, and the ratio lacks these",
    )
}


def worker(objective: str = "ctpo", **settings: Any) -> type:  # noqa: ANN401
    """Return ROLL's actor worker for RLVR with our loss, for a module of yours to give a name.

    Args:
        objective: Name of a preset, or `module:name` for an objective of yours.
        **settings: Of `CustomLoss`: `anchor`, `mismatch_cap`, `positions`, `updates_per_batch`, and
            the preset's parameters.

    Raises:
        ModuleNotFoundError: The engine is not installed.
        ValueError: As for `CustomLoss`.
    """
    with installed("roll"):
        from roll.pipeline.rlvr.actor_worker import ActorWorker
        from roll.utils.functionals import agg_loss

    return over(ActorWorker, agg_loss, CustomLoss(objective, **settings))


def over(base: type, agg_loss: Callable[..., Tensor], loss: CustomLoss) -> type:
    """Return a subclass of ROLL's actor worker in which a loss stands for the surrogate.

    ROLL's own `loss_func` is called with advantages of 0, and what is left of it are the KL and
    entropy terms and the metrics.

    Args:
        base: ROLL's `ActorWorker`.
        agg_loss: ROLL's reduction.
        loss: Ours.
    """

    class ActorWorker(base):
        def get_old_log_probs_with_cache(self, data: Any, log_probs: Tensor) -> Tensor:  # noqa: ANN401
            """Return ROLL's old log-probs, and keep both for our loss."""
            old: Tensor = super().get_old_log_probs_with_cache(data, log_probs)
            self._log_probs = log_probs, old
            return old

        def loss_func(self, data: Any, output_tensor: Tensor) -> tuple[Tensor, dict[str, Any]]:  # noqa: ANN401
            """Return a micro-batch's share of the loss, and metrics.

            Args:
                data: ROLL's `DataProto`; of its batch are read `advantages` [B, T-1],
                    `response_mask` [B, T], over which products go, `final_response_mask` [B, T-1],
                    the tokens that are trained on, and `infer_logprobs` [B, T-1].
                output_tensor: Logits.

            Raises:
                ValueError: A setting has no effect or would change the ratio.
            """
            settings = self.pipeline_config
            check(settings, loss)
            batch = data.batch
            advantages = batch["advantages"]
            batch["advantages"] = torch.zeros_like(advantages)
            try:
                others, reported = super().loss_func(data, output_tensor)
            finally:
                batch["advantages"] = advantages
            log_probs, old = self._log_probs
            del self._log_probs
            mask = batch["response_mask"][:, 1:] > 0
            infer = batch.get("infer_logprobs")
            out = loss(
                log_probs,
                advantages,
                mask,
                old=old,
                rollout=infer if infer is not None and len(infer) else None,
            )
            final = batch.get("final_response_mask", mask) > 0
            share = agg_loss(
                loss_mat=out.per_token.where(final, 0.0),
                loss_mask=final.long(),
                loss_agg_mode=settings.loss_agg_mode,
                weights=self.compute_sample_weights(data, mask.long()),
                batch_num_tokens=data.meta_info["batch_num_tokens"]["final_response_mask"],
                global_valid_samples=data.meta_info["global_valid_samples"]["final_response_mask"],
            )
            ours = {f"actor/{name}@mean": value for name, value in metrics(out).items()}
            return others + share * settings.rl_loss_coef, reported | ours

    return ActorWorker


def check(settings: Any, loss: CustomLoss) -> None:  # noqa: ANN401 - ROLL's `RLVRConfig`
    """Raise if ROLL's configuration would change the ratio, or holds what would do nothing.

    Raises:
        ValueError: Names the setting, its value and what would be right.
    """
    refuse(settings, _PIPELINE)
    if loss.anchor == "old":
        refuse(settings, _OLD)
    for i, rule in enumerate(settings.train_infer_correction.filters):
        label = f"train_infer_correction.filters[{i}]"
        if rule.enabled and rule.agg_type in ("token", "segment"):
            raise ValueError(
                f"{label}.agg_type is {rule.agg_type!r}; it must be 'sequence' or 'geometric': "
                f"{HOLES}"
            )
        if rule.enabled and not settings.enable_old_logprobs_recompute:
            raise ValueError(
                f"{label}.enabled is True beside enable_old_logprobs_recompute=False, where ROLL "
                "filters inside its own loss; set that to true"
            )
