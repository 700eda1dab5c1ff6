"""CTPO on SkyRL: a loss for its registry, chosen by `trainer.algorithm.policy_loss_type`."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from ctpo.engines.adapters import installed
from ctpo.engines.custom_loss import (
    HOLES,
    RESTARTS,
    TRUNCATED,
    CustomLoss,
    metrics,
    refuse,
    weighed,
)

_CORRECTION = "SkyRL's corrections are not applied to this loss; weigh with mismatch_cap"
_OF_OTHERS = (
    "it is a parameter of SkyRL's own losses; ours are given to ctpo.engines.skyrl.register"
)
_ALGORITHM: dict[str, tuple[tuple[object, ...], str]] = {
    "off_policy_correction.token_mask_is_threshold_low": ((None,), HOLES),
    "off_policy_correction.token_mask_is_threshold_high": ((None,), HOLES),
    "off_policy_correction.tis_ratio_type": ((None,), _CORRECTION),
    "off_policy_correction.sequence_mask_metric": ((None,), _CORRECTION),
    "off_policy_correction.outlier_token_is_threshold_low": ((None,), _CORRECTION),
    "off_policy_correction.outlier_token_is_threshold_high": ((None,), _CORRECTION),
    "use_tis": ((False,), _CORRECTION),
    "eps_clip_low": ((0.2,), _OF_OTHERS),
    "eps_clip_high": ((0.2,), _OF_OTHERS),
    "clip_ratio_c": ((3.0,), _OF_OTHERS),
}
_SAMPLING = {
    "top_p": ((1.0, 1), TRUNCATED),
    "top_k": ((-1,), TRUNCATED),
    "min_p": ((0.0,), TRUNCATED),
}


def register(objective: str = "ctpo", *, config: Any = None, **settings: Any) -> str:  # noqa: ANN401
    """Register a loss with SkyRL, before `initialize_ray`.

    Args:
        objective: Name of a preset, or `module:name` for an objective of yours.
        config: SkyRL's whole configuration, to be looked at before anything starts; None for not
            yet. What its algorithm section must not hold is refused at the first loss, too.
        **settings: Of `CustomLoss`: `anchor`, `mismatch_cap`, `positions`, `updates_per_batch`, and
            the preset's parameters.

    Returns:
        The name for `trainer.algorithm.policy_loss_type`: the preset's, or `ctpo-<name>` where
        SkyRL has a loss of that name.

    Raises:
        ModuleNotFoundError: The engine is not installed.
        ValueError: A setting has no effect or would change the ratio, or the name is taken.
    """
    with installed("skyrl"):
        from skyrl.backends.skyrl_train.utils.ppo_utils import PolicyLossRegistry, PolicyLossType

    loss = SkyRLLoss(objective, **settings)
    if config is not None:
        check(config)
    name = f"ctpo-{objective}" if objective in {t.value for t in PolicyLossType} else objective
    PolicyLossRegistry.register(name, loss)
    return name


def check(config: Any) -> None:  # noqa: ANN401 - SkyRL's `SkyRLTrainConfig`
    """Refuse what would change the ratio, and warn where a product restarts.

    Raises:
        ValueError: Names the setting, its value and what would be right.
    """
    refuse(config.trainer.algorithm, _ALGORITHM, "trainer.algorithm.")
    refuse(config.generator.sampling_params, _SAMPLING, "generator.sampling_params.")
    if getattr(config.generator, "step_wise_trajectories", False):
        warnings.warn(f"generator.step_wise_trajectories is true: {RESTARTS}", stacklevel=3)


class SkyRLLoss:
    """The loss as SkyRL calls it; see `register`.

    Args:
        objective: Name of a preset.
        **settings: Of `CustomLoss`.
    """

    def __init__(self, objective: str = "ctpo", **settings: Any) -> None:  # noqa: ANN401
        self._loss = CustomLoss(objective, **settings)

    def __call__(
        self,
        log_probs: Tensor,
        old_log_probs: Tensor,
        advantages: Tensor,
        config: Any,  # noqa: ANN401 - its `AlgorithmConfig`
        loss_mask: Tensor | None = None,
        rollout_logprobs: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the masked sum of a micro-batch, and metrics.

        Advantages come divided for the reduction that `trainer.algorithm.loss_reduction` names, so
        the sum over micro-batches is the mini-batch's loss.

        Args:
            log_probs: log π_θ(a_t|s_t) in nats, [B, T]; the gradient flows to these.
            old_log_probs: The trainer's, from before the first update.
            advantages: [B, T].
            config: The algorithm's section.
            loss_mask: Above 0 on the policy's tokens, with a token's weight; None for all.
            rollout_logprobs: The generating engine's; None if it gave none.

        Raises:
            ValueError: See `register`; or log-probs are missing that the loss needs.
        """
        refuse(config, _ALGORITHM, "trainer.algorithm.")
        weights = torch.ones_like(log_probs) if loss_mask is None else loss_mask
        out = self._loss(
            log_probs, advantages, weights > 0, old=old_log_probs, rollout=rollout_logprobs
        )
        return weighed(out.per_token, weights, out.mask), metrics(out)
