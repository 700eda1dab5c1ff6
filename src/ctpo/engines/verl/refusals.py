"""Settings of verl that would do nothing, or harm, with a loss of ours: refused by name."""

# ruff: noqa: ANN401 - sections of verl's configuration, as dataclass or as DictConfig

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any

from verl.workers.config import ActorConfig, PolicyLossConfig

from ctpo.engines.verl.names import PRESET_OF
from ctpo.objective import METHODS, Objective
from ctpo.objective.named.presets import imported

_INSTEAD = {
    "clip_ratio": "eps_low and eps_high, or clip_low and clip_high",
    "clip_ratio_low": "eps_low or clip_low",
    "clip_ratio_high": "eps_high or clip_high",
    "clip_ratio_c": "dual_clip",
    "tau_pos": "parameters.tau_pos",
    "tau_neg": "parameters.tau_neg",
}
"""Parameters of verl's own losses in the actor's section, and what ours have in their place."""

_OF_THE_LOSS = ("loss_mode", "rollout_correction")
"""Fields of verl's `policy_loss` section that mean something to our losses."""

_UNTRUNCATED: dict[str, tuple[object, ...]] = {"top_p": (1, None), "top_k": (-1, 0, None)}


def refuse_actor_settings(actor: Any) -> None:
    """Raise if a setting of the actor has no effect on our losses.

    Args:
        actor: verl's section `actor_rollout_ref.actor`, with a loss of ours.

    Raises:
        ValueError: Names the setting, its value and what to set instead.
    """
    for field in fields(ActorConfig):
        if field.name not in _INSTEAD:
            continue
        value = actor.get(field.name, field.default)
        if value is not None and value != field.default:
            raise ValueError(
                f"actor_rollout_ref.actor.{field.name} is {value!r}: it is a parameter of verl's "
                f"own losses and has no effect on {actor.policy_loss.loss_mode!r}. Leave it out; "
                f"ours have actor_rollout_ref.actor.policy_loss.{_INSTEAD[field.name]}"
            )
    refuse_loss_settings(actor.policy_loss)


def refuse_loss_settings(policy_loss: Any) -> None:
    """Raise if a parameter of one of verl's losses is set, but the loss is ours.

    Args:
        policy_loss: verl's section `actor_rollout_ref.actor.policy_loss`.

    Raises:
        ValueError: Names the setting and its value.
    """
    for field in fields(PolicyLossConfig):
        if field.name.startswith("_") or field.name in _OF_THE_LOSS:
            continue
        value = policy_loss.get(field.name, field.default)
        if value != field.default:
            raise ValueError(
                f"policy_loss.{field.name} is {value!r}: it is a parameter of one of verl's own "
                f"losses and has no effect on {policy_loss.loss_mode!r}; leave it out"
            )


def refuse_mismatch(objective: Objective) -> None:
    """Raise if an objective wants a weight against the generator, which verl computes before it.

    Raises:
        ValueError: Names the weight and what to set instead.
    """
    if objective.mismatch is not None:
        raise ValueError(
            f"the objective has {objective.mismatch!r}, and verl computes weights against the "
            "generator before the loss; leave it out and set "
            "algorithm.rollout_correction.rollout_is=prefix and rollout_is_threshold"
        )


def refuse_rollout_correction(correction: Any) -> None:
    """Raise if verl's correction of the rollouts would change the ratio itself.

    Args:
        correction: verl's section `algorithm.rollout_correction`, or None.

    Raises:
        ValueError: Names the setting, its value and what to set instead.
    """
    rejection = (correction and correction.get("rollout_rs")) or ""
    by_token = [mode for mode in rejection.split(",") if mode.strip().startswith("token_")]
    if by_token:
        raise ValueError(
            f"algorithm.rollout_correction.rollout_rs is {rejection!r}: rejecting single tokens "
            "punches holes in the mask, and what stands behind a hole gets another position t and "
            "another product rho_t than it was generated with. Reject whole responses (seq_sum_k1, "
            "seq_mean_k1, ...), or weigh tokens with rollout_is=prefix"
        )


def refuse_and_warn(config: Any) -> None:
    """Look at verl's whole configuration, if it asks for a loss of ours.

    Raises:
        ValueError: A setting would do nothing, or change the ratio; names it, its value and what
            would be right.
    """
    actor, rollout = config.actor_rollout_ref.actor, config.actor_rollout_ref.rollout
    loss_mode = actor.policy_loss.get("loss_mode", "vanilla")
    reference = actor.policy_loss.get("import_")
    own = imported(reference, "policy_loss.import_") if reference else None
    if loss_mode not in PRESET_OF:
        return
    refuse_actor_settings(actor)
    correction = config.algorithm.get("rollout_correction")
    refuse_rollout_correction(correction)
    for name, allowed in _UNTRUNCATED.items():
        value = rollout.get(name)
        if value not in allowed:
            raise ValueError(
                f"actor_rollout_ref.rollout.{name} is {value!r}: truncated sampling generates from "
                "another distribution than the log-probs are of, which a product of ratios raises "
                f"to the power t; it must be {allowed[0]!r}"
            )
    for name in ("rollout_is", "rollout_rs", "bypass_mode"):
        if correction and correction.get(name) and not rollout.get("calculate_log_probs"):
            raise ValueError(
                f"algorithm.rollout_correction.{name} is {correction[name]!r} and has no effect "
                "without the generator's log-probs; set "
                "actor_rollout_ref.rollout.calculate_log_probs=true"
            )
    if correction and correction.get("bypass_mode"):
        if not config.trainer.get("use_v1", True):
            raise ValueError(
                "algorithm.rollout_correction.bypass_mode is true: the legacy trainer replaces "
                f"the loss {loss_mode!r} by 'bypass_mode' then; set bypass_mode=false, or "
                "trainer.use_v1=true"
            )
        warnings.warn(
            "algorithm.rollout_correction.bypass_mode takes the generator's log-probs for the old "
            "ones: whatever the generator computes differently becomes part of every ratio, and of "
            "a product to the power t",
            stacklevel=2,
        )
    wanted = METHODS[own or PRESET_OF[loss_mode]].reduction
    if actor.loss_agg_mode not in (wanted, f"{wanted}-norm"):
        warnings.warn(
            f"actor_rollout_ref.actor.loss_agg_mode is {actor.loss_agg_mode!r}; the source of "
            f"{loss_mode!r} takes {wanted!r}",
            stacklevel=2,
        )
