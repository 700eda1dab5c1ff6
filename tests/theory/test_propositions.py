"""The claims themselves, on worlds other than those of the documentation."""

from fractions import Fraction

import pytest
import torch

from ctpo.objective import RATIOS
from ctpo.theory.bias import plain, problem
from ctpo.theory.enumeration import World, at_distance, random_parameters
from ctpo.theory.moments import estimator_moments, on_policy_moments
from ctpo.theory.rational import cancelling_example, rational_check
from ctpo.theory.variance import ratio_variances

WORLDS = [
    World(2, 8),
    World(3, 5, ends=True),
    World(4, 4, ends=True, dimensions=5),
    World(5, 3),
]
UNBIASED = ("cumulative", "full-sequence")


@pytest.fixture(params=range(len(WORLDS)))
def case(request):
    return problem(WORLDS[request.param], seed=50 + request.param)


@pytest.mark.parametrize("kl", [1e-3, 0.1])
def test_for_a_given_advantage_exactly_the_cumulative_and_the_full_ratio_are_unbiased(case, kl):
    new = case.new(kl)
    target = on_policy_moments(case.world, new, case.given).mean
    for ratio in RATIOS:
        moments = estimator_moments(case.world, case.old, new, plain(ratio), case.given)
        bias = moments.bias(target) / float(target.norm())
        assert (bias < 1e-12) == (ratio in UNBIASED), (ratio, bias)
        assert ratio in UNBIASED or bias > 1e-4


@pytest.mark.parametrize("kl", [1e-3, 0.1])
def test_with_a_reward_at_the_end_only_the_full_ratio_is_unbiased(case, kl):
    new = case.new(kl)
    target = case.objective_gradient(new).mean
    for ratio in RATIOS:
        moments = estimator_moments(case.world, case.old, new, plain(ratio), case.rewards)
        bias = moments.bias(target) / float(target.norm())
        assert (bias < 1e-12) == (ratio == "full-sequence"), (ratio, bias)


def test_the_cumulative_ratio_with_a_sampled_reward_has_the_old_continuation(case):
    new = case.new(0.05)
    found = estimator_moments(case.world, case.old, new, plain("cumulative"), case.rewards)
    expected = on_policy_moments(case.world, new, case.advantages(case.old)).mean
    torch.testing.assert_close(found.mean, expected, rtol=0, atol=1e-12)


def test_as_a_surrogate_the_cumulative_ratio_is_exact(case):
    world, new = case.world, case.new(0.05)
    before = world.logprobs(case.old)
    rho = (world.logprobs(new) - before).cumsum(1).exp()
    terms = (rho * case.advantages(case.old)).sum(1)
    surrogate = float((before.sum(1).exp() * terms).sum())
    gained = float((world.probabilities(new) * case.rewards).sum()) - case.baseline()
    assert surrogate == pytest.approx(gained, abs=1e-12)


def test_the_literal_gradient_of_that_surrogate_is_the_gradient_of_the_objective(case):
    new = case.new(0.05)
    target = case.objective_gradient(new).mean
    literal = plain("cumulative", literal=True)
    known = case.advantages(case.old)
    found = estimator_moments(case.world, case.old, new, literal, known)
    torch.testing.assert_close(found.mean, target, rtol=0, atol=1e-12)
    # With a sampled reward in place of A_old the sum no longer telescopes.
    sampled = case.rewards - case.baseline()
    wrong = estimator_moments(case.world, case.old, new, literal, sampled)
    assert wrong.bias(target) > 0.1 * float(target.norm())


def test_dividing_by_the_length_of_a_trajectory_leaves_only_the_full_ratio_unbiased():
    case = problem(World(3, 5, ends=True), seed=60)
    new = case.new(0.05)
    target = on_policy_moments(case.world, new, case.given, length_mean=True).mean
    for ratio in UNBIASED:
        moments = estimator_moments(
            case.world, case.old, new, plain(ratio), case.given, length_mean=True
        )
        bias = moments.bias(target) / float(target.norm())
        assert (bias < 1e-12) == (ratio == "full-sequence")


def test_the_cumulative_ratio_varies_less_by_what_the_suffix_adds(case):
    """Var ρ_H - Var ρ_t = E[ρ_t² Var(ε_t | s_t, a_t)], which is never negative."""
    world, new = case.world, case.new(0.05)
    before = world.logprobs(case.old)
    probabilities = before.sum(1).exp()
    log_rho = (world.logprobs(new) - before).cumsum(1)
    _, cumulative = ratio_variances(world, case.old, new)
    for t in range(world.length):
        suffix = (log_rho[:, -1] - log_rho[:, t]).exp()
        nodes = world.prefixes[:, t] * world.vocabulary + world.tokens[:, t]
        reach = torch.zeros(int(nodes.max()) + 1).double().index_add(0, nodes, probabilities)
        moments = [
            torch.zeros_like(reach).index_add(0, nodes, probabilities * suffix**k) / reach
            for k in (1, 2)
        ]
        torch.testing.assert_close(moments[0][nodes], torch.ones(world.size).double())
        spread = (moments[1] - moments[0] ** 2)[nodes]
        expected = float((probabilities * (2 * log_rho[:, t]).exp() * spread).sum())
        assert float(cumulative[-1] - cumulative[t]) == pytest.approx(expected, abs=1e-12)
        assert expected > 0 or t == world.length - 1


@pytest.mark.parametrize(("features", "holds"), [("position", True), ("prefix", False)])
def test_the_closed_form_holds_where_token_ratios_are_independent(features, holds):
    world = World(3, 6, features=features)
    old = random_parameters(world, 1)
    new = at_distance(world, old, random_parameters(world, 2), 0.02)
    token, cumulative = ratio_variances(world, old, new)
    closed = (1 + token).cumprod(0) - 1
    assert bool(((cumulative / closed - 1).abs() < 1e-10).all()) == holds


def test_in_rational_arithmetic_what_is_claimed_is_exactly_so():
    rows = rational_check().rows
    assert {claim for _, claim, _ in rows} == {"= 0", "> 0"}
    for what, claim, value in rows:
        assert (Fraction(str(value)) == 0) == (claim == "= 0"), what
        assert Fraction(str(value)) >= 0, what


def test_there_is_a_given_advantage_for_which_the_full_ratio_varies_less():
    (_, mean_c, cumulative), (_, mean_f, full) = cancelling_example().rows
    # By hand: (ρ_1 - ρ_2)·X_1 has the values ∓(4/3 - 16/9)/3, ... with squares that average 16/729.
    assert Fraction(str(mean_c)) == Fraction(str(mean_f)) == 0
    assert Fraction(str(full)) == 0
    ratios = {1: Fraction(4, 3), 0: Fraction(2, 3)}
    terms = {1: Fraction(1, 3), 0: Fraction(-2, 3)}
    by_hand = sum(
        Fraction(1, 4) * (ratios[a] * (1 - ratios[b]) * terms[a]) ** 2
        for a in (0, 1)
        for b in (0, 1)
    )
    assert Fraction(str(cumulative)) == by_hand
