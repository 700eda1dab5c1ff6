"""verl's advantage estimator `ctpo_group`: group-relative, ungraded answers left out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from verl.trainer.ppo.core_algos import register_adv_est

from ctpo.engines.verl.reward import UNGRADED
from ctpo.objective import group_centered, group_normalized

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

NAME = "ctpo_group"


def ctpo_group(
    token_level_rewards: Float[Tensor, "B T"],
    response_mask: Float[Tensor, "B T"],
    index: Sequence[Hashable],
    config: Mapping[str, Any] | None = None,
    **_: object,
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
    """Return A_i = (R_i - mean) / (std + 1e-6) of each group, on every token of an answer.

    An answer whose score is `UNGRADED` or NaN enters no mean and no deviation and has advantage 0.
    Where all are graded this is verl's `grpo`, but for a group of one answer: verl takes its score
    for the advantage, here it is 0, since there is nothing to compare it with. An agent loop that
    makes several rows of one answer, which verl's `grpo` knows to count once, is not for this one.

    Args:
        token_level_rewards: Zero but for the answer's score on one token.
        response_mask: 1 on the policy's tokens.
        index: The group of each answer.
        config: verl's `algorithm`; `norm_adv_by_std_in_grpo=False` leaves out the division.
        **_: What else verl hands over.

    Returns:
        Advantages, and the same again as verl's returns.

    Raises:
        ValueError: `algorithm.use_kl_in_reward` is set, or not one answer could be graded.
    """
    given = config if config is not None else {}
    if given.get("use_kl_in_reward", False):
        raise ValueError(
            f"algorithm.use_kl_in_reward changes the scores by which {NAME} knows the answers that "
            "nobody could grade; use actor.use_kl_loss instead"
        )
    scores = token_level_rewards.sum(dim=-1)
    scores = torch.where(scores == UNGRADED, torch.nan, scores)
    real = response_mask.any(dim=-1)  # verl fills batches up with rows that hold no policy token
    if bool(real.any()) and bool(scores[real].isnan().all()):
        raise ValueError(
            f"none of the {int(real.sum())} answers of this batch could be graded: are the data "
            "set's right answers what they should be, and does the sandbox run?"
        )
    names = {name: number for number, name in enumerate(dict.fromkeys(index))}
    of_group = torch.tensor([names[name] for name in index])
    if given.get("norm_adv_by_std_in_grpo", True):
        advantages = group_normalized(scores, groups=of_group, eps=1e-6)
    else:
        advantages = group_centered(scores, groups=of_group)
    per_token = advantages.to(token_level_rewards.dtype).unsqueeze(-1) * response_mask
    return per_token, per_token


def register() -> None:
    """Register the estimator with verl. Doing so again changes nothing.

    Raises:
        ValueError: Somebody else has taken the name.
    """
    register_adv_est(NAME)(ctpo_group)


register()
