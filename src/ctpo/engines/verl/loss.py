"""The loss: one function, registered with verl under the name of every preset."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, agg_loss, register_policy_loss

from ctpo.engines.verl import recording
from ctpo.engines.verl.names import PRESET_OF, loss_name
from ctpo.engines.verl.refusals import refuse_actor_settings, refuse_mismatch
from ctpo.objective import PRESETS, Objective, PositionStatistics
from ctpo.objective.named.presets import tell_of_presets
from ctpo.objective.statistics.steps import on_policy_metrics

if TYPE_CHECKING:
    from jaxtyping import Float, Real
    from torch import Tensor
    from verl.workers.config import ActorConfig


def policy_loss(
    old_log_prob: Float[Tensor, "B T"],
    log_prob: Float[Tensor, "B T"],
    advantages: Float[Tensor, "B T"],
    response_mask: Real[Tensor, "B T"],
    loss_agg_mode: str,
    config: ActorConfig,
    rollout_is_weights: Float[Tensor, "B T"] | None = None,
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """Return a micro-batch's share of the loss, as verl asks for it.

    L_t = objective(log π_θ, log π_old, A, mask)_t · w_t, reduced by verl's own `agg_loss` with the
    sizes of the whole mini-batch, so that the shares of micro-batches and ranks add up. The
    objective is that of `config.policy_loss.loss_mode`; w_t are verl's weights against the
    generator, 1 without. Nothing is read back from a GPU where verl's worker records the statistics
    (see `recording`); elsewhere the micro-batch's own metrics are, twice.

    Args:
        old_log_prob: log π_old(a_t|s_t) in nats, of the trainer; anything where masked.
        log_prob: log π_θ(a_t|s_t) in nats; the gradient flows to these.
        advantages: One per token.
        response_mask: 1 on the tokens that the policy generated.
        loss_agg_mode: verl's reduction.
        config: The actor's.
        rollout_is_weights: Factor of each token's loss; anything where masked.

    Returns:
        The loss and its metrics. There are none if verl's worker records the statistics: it adds
        them itself, over all tokens of the step. The mean over micro-batches that verl would make
        of them weighs a token the more, the fewer there are in its micro-batch.

    Raises:
        ValueError: If a setting of the actor has no effect on the loss, or shapes, dtypes or mask
            do not fit.
        RuntimeError: If statistics by position are asked for where none are recorded.
    """
    settings = config.policy_loss
    refuse_actor_settings(config)
    _warn_of_rounding(log_prob)
    out = objective_of(settings)(log_prob, old_log_prob, advantages, response_mask)
    per_token = out.per_token
    if rollout_is_weights is not None:
        if rollout_is_weights.shape != per_token.shape:
            raise ValueError(
                f"rollout_is_weights must have the shape of log_prob, {list(per_token.shape)}, got "
                f"{list(rollout_is_weights.shape)}"
            )
        per_token = per_token * torch.where(out.mask, rollout_is_weights, 0.0)
    loss = agg_loss(
        loss_mat=per_token,
        loss_mask=out.mask,
        loss_agg_mode=loss_agg_mode,
        **config.global_batch_info,
    )
    if recording.add(out.statistics, settings.get("positions")):
        return loss, {}
    return loss, metrics(out.statistics)


def objective_of(settings: Any) -> Objective:  # noqa: ANN401 - verl's configuration or ours
    """Return the objective that a `policy_loss` section of verl's configuration describes.

    Args:
        settings: A `CTPOPolicyLossConfig`, or verl's own `PolicyLossConfig` for a preset as it is.
    """
    build = getattr(settings, "build_objective", None)
    objective: Objective = PRESETS[PRESET_OF[settings.loss_mode]] if build is None else build()
    refuse_mismatch(objective)
    return objective


def metrics(statistics: PositionStatistics) -> dict[str, float]:
    """Return what to log, by verl's names and by ours: means over tokens.

    Args:
        statistics: Of a micro-batch or of a whole step. Is read back to the host, twice.

    Returns:
        `actor/pg_clipfrac`, `actor/pg_clipfrac_lower` and `actor/ppo_kl` as verl's losses have
        them, and `actor/ctpo/<name>` for each name of `PositionStatistics.summary`. NaN without
        tokens.
    """
    summary = statistics.summary()
    return {
        "actor/pg_clipfrac": summary["clip/high"] + summary["clip/low"],
        "actor/pg_clipfrac_lower": summary["clip/dual"],
        "actor/ppo_kl": -summary["log_ratio/mean"],
        **{f"actor/ctpo/{name}": value for name, value in summary.items()},
    }


def step_metrics(total: PositionStatistics, first: PositionStatistics) -> dict[str, float]:
    """Return `metrics` of a whole step, and what its first mini-batch says.

    Args:
        total: Of all updates of the step.
        first: Of its first mini-batch, from before the weights moved.

    Returns:
        Besides `metrics`, `actor/ctpo/on_policy/log_rho_max`; see `on_policy_metrics`.
    """
    found = on_policy_metrics(first)
    return metrics(total) | {f"actor/ctpo/{name}": value for name, value in found.items()}


def register(*presets: str) -> None:
    """Register losses with verl. Doing so again changes nothing.

    Args:
        *presets: The presets whose losses; all of them if none is named.

    Raises:
        RuntimeError: If somebody else has taken one of the names.
    """
    for name in map(loss_name, presets or PRESETS):
        present = POLICY_LOSS_REGISTRY.get(name)
        if present is not None and present is not policy_loss:
            raise RuntimeError(
                f"the loss {name!r} is already registered with verl, from "
                f"{present.__module__}.{present.__qualname__}; two losses cannot share a name"
            )
        register_policy_loss(name)(policy_loss)


def _warn_of_rounding(log_prob: Tensor) -> None:
    if log_prob.dtype in (torch.bfloat16, torch.float16):
        warnings.warn(  # once per place in the code, as Python's default has it
            f"log-probs come in {log_prob.dtype}, which rounds each by up to 0.03: more than "
            "CTPO's window at the first positions, and it adds up along the response. verl "
            "computes them in float32 where flash-attn is installed",
            stacklevel=2,
        )


tell_of_presets(register)
