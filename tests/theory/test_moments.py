"""Expectations and covariances against loops over trajectories, written without the library."""

import math

import pytest
import torch

from ctpo.objective import RATIOS
from ctpo.theory.bias import plain, problem
from ctpo.theory.enumeration import World, random_parameters
from ctpo.theory.moments import estimator_mean, estimator_moments, on_policy_moments


def weight(ratio, r, t):
    """w_t from the token ratios r_1, ..., r_H of one trajectory; t from 1."""
    prefix = math.prod(r[:t])
    return {
        "token": lambda: r[t - 1],
        "cumulative": lambda: prefix,
        "cumulative-geometric-mean": lambda: prefix ** (1 / t),
        "full-sequence": lambda: math.prod(r),
        "sequence-geometric-mean": lambda: math.prod(r) ** (1 / len(r)),
        "minimum-prefix": lambda: r[t - 1] * min(r[: t - 1], default=1.0),
    }[ratio]()


def by_loops(case, new, ratio):
    """Mean and covariance of Σ_t w_t A_t ∇log π_new, one trajectory after the other."""
    world = case.world
    before, now = world.table(case.old), world.table(new)
    size = new.numel()
    mean, second = torch.zeros(size).double(), torch.zeros(size, size).double()
    for i in range(world.size):
        length = int(world.lengths[i])
        steps = [(int(world.prefixes[i, t]), int(world.tokens[i, t])) for t in range(length)]
        r = [math.exp(now[t][s, a] - before[t][s, a]) for t, (s, a) in enumerate(steps)]
        probability = math.exp(sum(before[t][s, a] for t, (s, a) in enumerate(steps)))
        gradient = torch.zeros_like(new)
        for t, (s, a) in enumerate(steps):
            score = -now[t][s].exp()
            score[a] += 1
            term = torch.outer(world.phi[t][s], score)
            gradient += weight(ratio, r, t + 1) * float(case.given[i, t]) * term
        flat = gradient.flatten()
        mean += probability * flat
        second += probability * torch.outer(flat, flat)
    return mean, second - torch.outer(mean, mean)


@pytest.mark.parametrize("ratio", RATIOS)
def test_mean_and_covariance_are_those_of_a_loop_over_trajectories(ratio):
    case = problem(World(3, 4, ends=True), seed=0)
    new = case.new(0.05)
    mean, covariance = by_loops(case, new, ratio)
    moments = estimator_moments(case.world, case.old, new, plain(ratio), case.given)
    torch.testing.assert_close(moments.mean, mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(moments.covariance, covariance, rtol=0, atol=1e-12)
    assert moments.variance == pytest.approx(float(covariance.trace()), rel=1e-10)


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_quick_mean_is_the_mean(ratio):
    case = problem(World(3, 5, ends=True), seed=1)
    new = case.new(0.05)
    quick = estimator_mean(case.world, case.old, new, plain(ratio), case.given)
    moments = estimator_moments(case.world, case.old, new, plain(ratio), case.given)
    torch.testing.assert_close(quick, moments.mean, rtol=0, atol=1e-12)


def test_the_on_policy_mean_is_the_gradient_of_the_expected_reward():
    world = World(3, 5, ends=True)
    rewards = torch.arange(world.size, dtype=torch.float64).sin()
    theta = random_parameters(world, 4).requires_grad_()
    (gradient,) = torch.autograd.grad((world.probabilities(theta) * rewards).sum(), theta)
    # A baseline moves nothing but the variance.
    for baseline in (0.0, 0.7):
        mean = on_policy_moments(world, theta.detach(), rewards - baseline).mean
        torch.testing.assert_close(mean, gradient.flatten(), rtol=0, atol=1e-12)


def test_without_a_step_every_ratio_is_the_on_policy_estimator():
    case = problem(World(3, 4), seed=2)
    expected = on_policy_moments(case.world, case.old, case.given)
    for ratio in RATIOS:
        found = estimator_moments(case.world, case.old, case.old, plain(ratio), case.given)
        torch.testing.assert_close(found.mean, expected.mean, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.covariance, expected.covariance, rtol=0, atol=1e-12)
