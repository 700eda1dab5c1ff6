"""Advantages from the rewards of a group of answers to the same prompt."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ctpo.objective.parameters import is_number

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Real
    from torch import Tensor


def group_normalized(
    rewards: Real[Tensor, " N"],
    *,
    group_size: int | None = None,
    groups: Int[Tensor, " N"] | None = None,
    eps: float = 1e-6,
) -> Float[Tensor, " N"]:
    """Return group-normalised advantages, A_i = (R_i - mean) / (std + eps) within each group.

    `std` is the unbiased one (divided by n - 1), as in verl and TRL; they differ in `eps`, which is
    1e-6 in verl and 1e-4 in TRL. Source: GRPO, arXiv 2402.03300.

    A NaN reward is an answer that could not be scored: it enters no statistic and its advantage
    is 0. A group whose scored rewards are all equal (a single one included) gives exactly 0.

    Computed in float64. Reads the rewards back to the host, which is once per batch.

    Args:
        rewards: One reward per answer; NaN where unscored.
        group_size: Size of each group, when the answers of a group stand next to each other.
        groups: Group of each answer, any integers in any order. Give this or `group_size`.
        eps: Added to the standard deviation. Raising it damps groups that hardly differ.

    Returns:
        Advantages, float64 if the rewards are, else float32.

    Raises:
        TypeError: If `rewards` or `groups` is no tensor, or `group_size` no integer.
        ValueError: If not exactly one of `group_size` and `groups` is given, the sizes do not fit,
            `eps` is negative, or a reward is infinite.
    """
    if not (is_number(eps) and 0 <= eps < math.inf):
        raise ValueError(f"eps is {eps!r}; it must be finite and at least 0, e.g. 1e-6")
    group = _Groups(rewards, group_size, groups)
    variance = group.total(group.deviation.square()) / (group.count - 1).clamp(min=1)
    return group.result(group.deviation / (variance.sqrt()[group.index] + eps))


def group_centered(
    rewards: Real[Tensor, " N"],
    *,
    group_size: int | None = None,
    groups: Int[Tensor, " N"] | None = None,
) -> Float[Tensor, " N"]:
    """Return group-centred advantages, A_i = R_i - mean within each group.

    Without the standard deviation, which makes problems that are nearly always or nearly never
    solved count more. Source: Dr. GRPO, arXiv 2503.20783.

    Arguments, errors, unscored answers, equal rewards and precision are as for `group_normalized`.
    """
    group = _Groups(rewards, group_size, groups)
    return group.result(group.deviation)


def leave_one_out(
    rewards: Real[Tensor, " N"],
    *,
    group_size: int | None = None,
    groups: Int[Tensor, " N"] | None = None,
) -> Float[Tensor, " N"]:
    """Return leave-one-out advantages, A_i = R_i - mean of the *others* of its group.

    The baseline does not depend on the answer it is subtracted from, so the policy gradient stays
    unbiased. It is n/(n - 1) times the group-centred advantage. Source: RLOO, arXiv 2402.14740.

    Arguments, errors, unscored answers, equal rewards and precision are as for `group_normalized`.
    """
    group = _Groups(rewards, group_size, groups)
    others = group.count / (group.count - 1).clamp(min=1)
    return group.result(group.deviation * others[group.index])


class _Groups:
    """The rewards of a batch by group, in float64."""

    def __init__(self, rewards: Tensor, group_size: int | None, groups: Tensor | None) -> None:
        for name, given in (("rewards", rewards), ("groups", groups)):
            if given is not None and not isinstance(given, torch.Tensor):
                raise TypeError(f"{name} must be a torch.Tensor, got {type(given).__name__}")
        if rewards.ndim != 1 or rewards.numel() == 0:
            raise ValueError(f"rewards must be [N] with N >= 1, got shape {list(rewards.shape)}")
        self.index, self._number = _group_indices(rewards, group_size, groups)
        self._dtype = torch.float64 if rewards.dtype == torch.float64 else torch.float32
        values = rewards.double()
        if bool(values.isinf().any()):
            first = int(values.isinf().nonzero()[0, 0])
            raise ValueError(
                f"rewards[{first}] is {float(values[first])}; a reward must be finite, or NaN if "
                "the answer could not be scored"
            )
        scored = ~values.isnan()
        values = torch.where(scored, values, 0.0)
        self.count = self.total(scored.double())
        mean = self.total(values) / self.count.clamp(min=1)
        self.deviation = torch.where(scored, values - mean[self.index], 0.0)
        # The mean of equal numbers need not be that number in floating point, and eps may be 0.
        empty = torch.zeros(self._number, dtype=torch.float64, device=values.device)
        lowest, highest = (
            empty.scatter_reduce(
                0, self.index, torch.where(scored, values, edge), which, include_self=False
            )
            for which, edge in (("amin", math.inf), ("amax", -math.inf))
        )
        self._differs = scored & (lowest < highest)[self.index]

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over each group."""
        empty = torch.zeros(self._number, dtype=torch.float64, device=values.device)
        return empty.index_add(0, self.index, values)

    def result(self, advantages: Tensor) -> Tensor:
        """Return advantages, exactly 0 where a group's rewards are all equal."""
        return torch.where(self._differs, advantages, 0.0).to(self._dtype)


def _group_indices(
    rewards: Tensor, group_size: int | None, groups: Tensor | None
) -> tuple[Tensor, int]:
    """Return the 0-based group of each reward and the number of groups."""
    size = rewards.numel()
    if (group_size is None) == (groups is None):
        raise ValueError("give exactly one of group_size and groups")
    if groups is not None:
        if groups.shape != rewards.shape or groups.is_floating_point():
            raise ValueError(
                f"groups must be {size} integers, one per reward, got shape "
                f"{list(groups.shape)} of {groups.dtype}"
            )
        names, indices = torch.unique(groups.to(rewards.device), return_inverse=True)
        return indices, names.numel()
    if isinstance(group_size, bool) or not isinstance(group_size, int):
        raise TypeError(f"group_size must be an integer, got {group_size!r}")
    if group_size < 1 or size % group_size:
        raise ValueError(
            f"group_size is {group_size}; it must be a positive divisor of the number of rewards, "
            f"{size}"
        )
    return torch.arange(size, device=rewards.device) // group_size, size // group_size
