"""Settings of verl around episodes that would do nothing, or harm: refused before work starts."""

# ruff: noqa: ANN401 - sections of verl's configuration, as dataclass or as DictConfig

from __future__ import annotations

import warnings
from typing import Any

from omegaconf import OmegaConf

from ctpo.engines.verl.advantages import NAME as ESTIMATOR
from ctpo.engines.verl.agent_loop import LOOP
from ctpo.engines.verl.episodes.settings import KEY, LoopSettings

_ROLLOUT = "actor_rollout_ref.rollout"
# What verl's own tool loop reads, and ours does not, and what to set instead.
_TOOL_LOOPS = {
    "max_assistant_turns": (None, "max_calls"),
    "max_user_turns": (None, "max_calls"),
    "max_parallel_calls": (1, "max_calls"),
    "max_tool_response_length": (256, "max_output_tokens"),
    "tool_response_truncate_side": ("middle", "max_output_tokens"),
    "tool_config_path": (None, "sandbox"),
    "function_tool_path": (None, "sandbox"),
    "format": ("hermes", "protocol"),
}


def refuse_episode_settings(config: Any) -> None:
    """Look at verl's whole configuration, as far as it is about episodes, rewards and advantages.

    Raises:
        ValueError: Names the setting, its value and what would be right.
    """
    rollout = config.actor_rollout_ref.rollout
    if rollout.agent.get("default_agent_loop") == LOOP:
        _refuse_loop_settings(rollout)
    estimator = config.algorithm.get("adv_estimator")
    if estimator == ESTIMATOR and config.algorithm.get("use_kl_in_reward"):
        raise ValueError(
            "algorithm.use_kl_in_reward is true: it changes the scores by which "
            f"{ESTIMATOR} knows the answers that nobody could grade; use "
            "actor_rollout_ref.actor.use_kl_loss"
        )
    reward = (config.get("reward") or {}).get("custom_reward_function") or {}
    ours = str(reward.get("path") or "").replace("/", ".").endswith("ctpo.engines.verl.reward")
    if ours and estimator != ESTIMATOR:
        warnings.warn(
            f"algorithm.adv_estimator is {estimator!r}: it takes an answer that could not be "
            f"graded for a wrong one; {ESTIMATOR!r} leaves it out",
            stacklevel=2,
        )


def _refuse_loop_settings(rollout: Any) -> None:
    custom = rollout.get("custom") or {}
    if OmegaConf.is_config(custom):
        custom = OmegaConf.to_container(custom, resolve=True)
    LoopSettings.read(custom.get(KEY))
    for name, (default, instead) in _TOOL_LOOPS.items():
        value = rollout.multi_turn.get(name, default)
        if value != default:
            raise ValueError(
                f"{_ROLLOUT}.multi_turn.{name} is {value!r}: it has no effect on the agent loop "
                f"{LOOP!r}; set {_ROLLOUT}.custom.{KEY}.{instead}"
            )
