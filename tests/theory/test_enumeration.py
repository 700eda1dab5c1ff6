import itertools
import math

import pytest
import torch

from ctpo.theory.enumeration import (
    World,
    at_distance,
    divergence,
    random_parameters,
    random_tables,
)


def strings(world):
    """Every trajectory as a tuple of tokens, its end included."""
    rows = zip(world.tokens.tolist(), world.lengths.tolist(), strict=True)
    return [tuple(tokens[:length]) for tokens, length in rows]


@pytest.mark.parametrize("ends", [False, True])
def test_every_trajectory_is_there_once(ends):
    world = World(3, 4, ends=ends)
    expected = set(itertools.product(range(3), repeat=4))
    if ends:
        expected = {s[: s.index(0) + 1] if 0 in s else s for s in expected}
    found = strings(world)
    assert len(found) == len(set(found)) == len(expected)
    assert set(found) == expected


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("features", ["prefix", "position"])
def test_probabilities_sum_to_one(ends, features):
    world = World(3, 5, ends=ends, features=features)
    assert float(world.probabilities(random_parameters(world, 1)).sum()) == pytest.approx(
        1, abs=1e-12
    )


def test_gradients_are_those_of_autograd():
    world = World(3, 4, ends=True)
    coefficients = torch.where(world.mask, world.gather(random_tables(world, 5)), 0.0)
    theta = random_parameters(world, 2).requires_grad_()
    by_hand = world.gradients(theta.detach(), coefficients)
    losses = (coefficients * world.logprobs(theta)).sum(1)
    for i in range(world.size):
        (gradient,) = torch.autograd.grad(losses[i], theta, retain_graph=True)
        torch.testing.assert_close(by_hand[i], gradient.flatten(), rtol=0, atol=1e-12)


def test_action_values_are_conditional_means_of_the_reward():
    world = World(3, 4, ends=True)
    theta = random_parameters(world, 3)
    rewards = torch.arange(world.size, dtype=torch.float64).cos()
    q, v = world.action_values(theta, rewards)
    probabilities = world.probabilities(theta).tolist()
    values, actions = world.gather(q), world.gather([x[:, None].expand(-1, 3) for x in v])
    found = strings(world)
    for i, s in enumerate(found):
        for t in range(len(s)):
            for length, value in ((t + 1, values[i, t]), (t, actions[i, t])):
                same = [j for j, other in enumerate(found) if other[:length] == s[:length]]
                total = sum(probabilities[j] for j in same)
                mean = sum(probabilities[j] * float(rewards[j]) for j in same) / total
                assert float(value) == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize("ends", [False, True])
def test_divergence_is_the_mean_log_ratio_per_token(ends):
    world = World(3, 4, ends=ends)
    old, new = random_parameters(world, 1), random_parameters(world, 2)
    probabilities = world.probabilities(old)
    total = (probabilities * (world.logprobs(old) - world.logprobs(new)).sum(1)).sum()
    tokens = (probabilities * world.lengths).sum()
    assert divergence(world, old, new) == pytest.approx(float(total / tokens), rel=1e-10)


def test_a_policy_is_found_at_the_wanted_distance():
    world = World(3, 4)
    old, direction = random_parameters(world, 1), random_parameters(world, 2)
    assert divergence(world, old, at_distance(world, old, direction, 0.01)) == pytest.approx(
        0.01, rel=1e-6
    )


def test_a_direction_that_leads_nowhere_is_refused():
    world = World(3, 4)
    old = random_parameters(world, 1)
    with pytest.raises(ValueError, match=r"no policy along this direction has a KL of 0\.01"):
        at_distance(world, old, torch.zeros_like(old), 0.01)


def test_independent_tokens_do_not_look_at_the_prefix():
    world = World(3, 4, features="position")
    for table in world.table(random_parameters(world, 1)):
        torch.testing.assert_close(table, table[:1].expand_as(table), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((1, 3), "vocabulary is 1; it must be at least 2"),
        ((3, 0), "length is 0; it must be at least 1"),
        ((10, 9), "1000000000 trajectories"),
    ],
)
def test_a_world_that_cannot_be_enumerated_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        World(*arguments)


def test_numbers_do_not_depend_on_the_machine():
    # Written down once: tables in the documentation hang on them.
    theta = random_parameters(World(2, 2), 7)
    assert math.isclose(float(theta[0, 0]), 0.0012301533574825742, rel_tol=1e-12)
