"""Exact mean and covariance of a gradient estimator, by enumeration."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from ctpo.objective import Objective

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from ctpo.theory.enumeration import World


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of the gradient of one trajectory, an ascent direction.

    Attributes:
        mean: E[g].
        second: E[g gᵀ].
    """

    mean: Float[Tensor, " P"]
    second: Float[Tensor, "P P"]

    @cached_property
    def covariance(self) -> Float[Tensor, "P P"]:
        """E[g gᵀ] - E[g] E[g]ᵀ."""
        return self.second - torch.outer(self.mean, self.mean)

    @property
    def variance(self) -> float:
        """Trace of the covariance: E|g - E[g]|²."""
        return float(self.covariance.trace())

    def bias(self, target: Float[Tensor, " P"]) -> float:
        """Return |E[g] - target|."""
        return float((self.mean - target).norm())


def coefficients(
    objective: Objective,
    logprobs: Float[Tensor, "N H"],
    old_logprobs: Float[Tensor, "N H"],
    advantages: Float[Tensor, "N H"] | Float[Tensor, " N"],
    mask: Tensor,
) -> Float[Tensor, "N H"]:
    """Return c_t of the library's estimator Σ_t c_t ∇log π_θ(a_t|s_t), read off its gradient.

    The sum over the tokens of a trajectory, without a division by its length, is the policy
    gradient as the theorems have it.

    Args:
        objective: The estimator: c_t = -∂(Σ_u loss_u)/∂log π_θ(a_t|s_t).
        logprobs: log π_θ in nats.
        old_logprobs: log π_old in nats.
        advantages: Per token or per trajectory.
        mask: True on policy tokens.
    """
    leaf = logprobs.detach().requires_grad_()
    output = objective(leaf, old_logprobs, advantages, mask, statistics=False)
    assert isinstance(output.per_token, torch.Tensor)
    (gradient,) = torch.autograd.grad(output.per_token.sum(), leaf)
    return -gradient


def estimator_moments(
    world: World,
    old: Float[Tensor, "d V"],
    new: Float[Tensor, "d V"],
    objective: Objective,
    advantages: Float[Tensor, "N H"] | Float[Tensor, " N"],
    *,
    length_mean: bool = False,
) -> Moments:
    """Return the exact moments of an estimator of the gradient at π_θ from data of π_old.

    Args:
        world: The trajectories.
        old: Parameters of π_old, which the expectation is over.
        new: Parameters of π_θ, at which the gradient is taken.
        objective: The estimator.
        advantages: A(s_t, a_t) per token, or what stands in its place per trajectory.
        length_mean: Divide each trajectory's sum by its length, as the seq-mean-token-mean does.
    """
    before, now = world.logprobs(old), world.logprobs(new)
    weights = coefficients(objective, now, before, advantages, world.mask)
    if length_mean:
        weights = weights / world.lengths[:, None]
    return _moments(before.sum(1).exp(), world.gradients(new, weights))


def estimator_mean(
    world: World,
    old: Float[Tensor, "d V"],
    new: Float[Tensor, "d V"],
    objective: Objective | None,
    advantages: Float[Tensor, "N H"],
) -> Float[Tensor, " P"]:
    """Return the mean of an estimator without the gradient of any single trajectory.

    Coefficients are added up by prefix and token first, so that a few hundred thousand trajectories
    take a moment.

    Args:
        world: The trajectories.
        old: Parameters of π_old; of π_θ itself for what is estimated.
        new: Parameters of π_θ.
        objective: The estimator, or None for weight 1.
        advantages: A(s_t, a_t) per token.
    """
    before = world.logprobs(old)
    weights = (
        torch.where(world.mask, advantages, 0.0)
        if objective is None
        else coefficients(objective, world.logprobs(new), before, advantages, world.mask)
    )
    weights = weights * before.sum(1).exp()[:, None]
    mean = torch.zeros_like(new)
    for t, table in enumerate(world.table(new)):
        sums = torch.zeros_like(table).flatten()
        place = world.prefixes[:, t] * world.vocabulary + world.tokens[:, t]
        sums = sums.index_add(0, place, weights[:, t]).view_as(table)
        # Σ_a c(s, a) (e_a - π(·|s)).
        scores = sums - table.exp() * sums.sum(1, keepdim=True)
        mean += world.phi[t].T @ scores
    return mean.flatten()


def on_policy_moments(
    world: World,
    new: Float[Tensor, "d V"],
    advantages: Float[Tensor, "N H"] | Float[Tensor, " N"],
    *,
    length_mean: bool = False,
) -> Moments:
    """Return the exact moments of the estimator without any ratio, on data of π_θ itself.

    Its mean is the target: of the token-level gradient with advantages A(s, a), of ∇J(π_θ) with
    rewards. Computed without the library's objective, so that it can judge it.

    Args:
        world: The trajectories.
        new: Parameters of π_θ.
        advantages: A(s_t, a_t) per token, or R(τ) per trajectory.
        length_mean: As for `estimator_moments`.
    """
    per_token = advantages if advantages.ndim == 2 else advantages[:, None]
    weights = torch.where(world.mask, per_token, 0.0)
    if length_mean:
        weights = weights / world.lengths[:, None]
    return _moments(world.probabilities(new), world.gradients(new, weights))


def _moments(probabilities: Tensor, gradients: Tensor) -> Moments:
    weighted = probabilities[:, None] * gradients
    return Moments(weighted.sum(0), gradients.T @ weighted)
