"""What is estimated from samples against what is known by enumeration."""

import math

import pytest
import torch

from ctpo.intervals import Interval
from ctpo.theory.bias import problem
from ctpo.theory.enumeration import World
from ctpo.theory.measured import ESTIMATORS, FULL, PromptSums, all_coefficients, qualities
from ctpo.theory.measured_ratios import by_position, weight_sample_size
from ctpo.theory.moments import estimator_moments, on_policy_moments
from ctpo.theory.resampling import mean_square, resample_prompts

PROMPTS, ANSWERS = 400, 10


@pytest.fixture(scope="module")
def case():
    return problem(World(3, 4, ends=True), seed=3)


@pytest.fixture(scope="module")
def sampled(case):
    """Trajectories of both policies and their gradients, unprojected, as sums by prompt."""
    world, new = case.world, case.new(0.05)
    generator = torch.Generator().manual_seed(0)
    sums = []
    for theta, on_policy in ((case.old, False), (new, True)):
        draws = torch.multinomial(
            world.probabilities(theta), PROMPTS * ANSWERS, replacement=True, generator=generator
        )
        advantages = (case.rewards - case.baseline())[draws]
        masks = [world.mask[i] for i in draws]
        now, before = ([world.logprobs(x)[i] for i in draws] for x in (new, case.old))
        if on_policy:
            rows = torch.where(torch.stack(masks), advantages[:, None], 0.0)[None]
        else:
            rows = all_coefficients(now, before, advantages, masks)
            rows = rows.view(len(ESTIMATORS), len(draws), world.length)
        part = PromptSums(PROMPTS, len(rows), new.numel())
        everything = torch.zeros(world.size, world.length, dtype=torch.float64)
        gradients = []
        for row in rows:
            # Equal trajectories have equal coefficients: one gradient for each kind is enough.
            everything[draws] = row
            gradients.append(world.gradients(new, everything)[draws])
        stacked = torch.stack(gradients, 1)
        for n, gradient in enumerate(stacked):
            part.add(n // ANSWERS, gradient.square().sum(1), gradient.float())
        sums.append(part)
    return sums


def test_bias_and_variance_are_those_of_enumeration(case, sampled):
    old, reference = sampled
    found, norm, noise = qualities(old, reference, resamples=200)
    new = case.new(0.05)
    advantages = case.rewards - case.baseline()
    target = on_policy_moments(case.world, new, advantages)
    assert norm is not None and noise is not None
    n = PROMPTS * ANSWERS
    assert noise.value == pytest.approx(target.variance, rel=0.1)
    for quality in found:
        objective = ESTIMATORS[quality.name]
        if objective is None:
            # Weight 1 on data of the old policy, scores of the new one.
            before = case.world.logprobs(case.old)
            weights = torch.where(case.world.mask, advantages[:, None], 0.0)
            gradients = case.world.gradients(new, weights)
            mean = (before.sum(1).exp()[:, None] * gradients).sum(0)
            square = (before.sum(1).exp() * gradients.square().sum(1)).sum()
            variance = float(square - mean.square().sum())
        else:
            moments = estimator_moments(case.world, case.old, new, objective, advantages)
            mean, variance = moments.mean, moments.variance
        assert quality.variance.value == pytest.approx(variance, rel=0.15), quality.name
        bias_square = float((mean - target.mean).square().sum())
        # Five standard deviations of the difference of two means of n.
        allowed = 5 * (variance + target.variance) / n
        allowed += 10 * math.sqrt(bias_square * (variance + target.variance) / n)
        assert quality.bias_square is not None
        assert quality.bias_square.value == pytest.approx(bias_square, abs=allowed)
        assert quality.bias_from_full.value == pytest.approx(bias_square, abs=allowed)
        assert 0 < quality.effective <= 1
        assert 0 < quality.largest < 1
    by_name = {quality.name: quality for quality in found}
    assert by_name[FULL].bias_from_full == Interval(0, 0, 0)
    assert by_name[FULL].over_full.value == 1


def test_noise_does_not_pass_for_a_squared_norm():
    generator = torch.Generator().manual_seed(0)
    values = [
        float(mean_square(torch.randn(20, 30, generator=generator), torch.ones(1, 20).double()))
        for _ in range(400)
    ]
    found = torch.tensor(values)
    # The mean of 20 vectors has a squared norm of 30/20 by noise alone.
    assert abs(float(found.mean())) < 5 * float(found.std()) / 20
    assert bool((found < 0).any())


def test_a_prompt_drawn_twice_is_not_paired_with_itself():
    vectors = torch.tensor([[3.0], [5.0], [7.0]])
    weights = torch.tensor([[1.0, 1, 1], [2, 1, 0]]).double()
    by_hand = [(15 + 21 + 35) / 3, 15.0]
    assert mean_square(vectors, weights).tolist() == pytest.approx(by_hand)


def test_the_first_resample_is_everybody_once():
    weights = resample_prompts(7, 5, seed=1)
    assert weights.shape == (6, 7)
    assert weights[0].tolist() == [1.0] * 7
    assert weights.sum(1).tolist() == [7.0] * 6


def test_coefficients_of_packed_trajectories_are_those_of_each_alone():
    generator = torch.Generator().manual_seed(0)
    now = [-torch.rand(n, generator=generator) for n in (3, 6, 1)]
    before = [-torch.rand(n, generator=generator) for n in (3, 6, 1)]
    masks = [torch.tensor([True] * n) for n in (3, 6, 1)]
    masks[1][2] = False
    advantages = torch.tensor([0.5, -1.0, 0.25])
    together = all_coefficients(now, before, advantages, masks).split([3, 6, 1], dim=1)
    for i, part in enumerate(together):
        alone = all_coefficients([now[i]], [before[i]], advantages[i : i + 1], [masks[i]])
        torch.testing.assert_close(part, alone, rtol=0, atol=1e-12)
    assert bool((together[1][:, 2] == 0).all())


def test_sample_sizes_of_weights_are_those_of_the_formula():
    log_ratios = [torch.tensor([0.1, -0.2]), torch.tensor([0.3])]
    for ratio, weights in (
        ("token", [math.exp(x) for x in (0.1, -0.2, 0.3)]),
        ("cumulative", [math.exp(x) for x in (0.1, -0.1, 0.3)]),
        ("full-sequence", [math.exp(x) for x in (-0.1, -0.1, 0.3)]),
    ):
        expected = sum(weights) ** 2 / sum(w * w for w in weights) / 3
        assert weight_sample_size(log_ratios, ratio) == pytest.approx(expected, rel=1e-6)


def test_ratios_by_position_are_over_those_that_reach_it():
    generator = torch.Generator().manual_seed(0)
    lengths = [2 + i % 3 for i in range(180)]
    log_ratios = [0.1 * torch.randn(n, generator=generator) for n in lengths]
    found = by_position(log_ratios, [i // 3 for i in range(180)], resamples=50)
    assert [p.t for p in found] == [1, 2, 3, 4]
    assert [p.count for p in found] == [180, 180, 120, 60]
    for p in found:
        reach = [x.double() for x in log_ratios if len(x) >= p.t]
        log_rho = torch.stack([x[: p.t].sum() for x in reach])
        log_full = torch.stack([x.sum() for x in reach])
        assert p.cumulative == pytest.approx(float(log_rho.exp().var(correction=0)), rel=1e-6)
        assert p.full == pytest.approx(float(log_full.exp().var(correction=0)), rel=1e-6)
        assert p.gap.low <= p.gap.value <= p.gap.high
        assert p.gap.value == pytest.approx(p.full - p.cumulative, abs=1e-12)
        free = torch.stack([torch.expm1(x[: p.t]).sum() for x in reach])
        bound = -0.025 * p.t**0.5
        assert p.below == pytest.approx(float((log_rho < bound).double().mean()))
        assert p.below_free == pytest.approx(float((free < bound).double().mean()))


def test_answers_that_all_got_their_mean_reward_are_refused():
    sums = PromptSums(3, len(ESTIMATORS), 2)
    for prompt in range(3):
        sums.add_nothing(prompt)
    with pytest.raises(ValueError, match="every answer of the old policy got just its problem's"):
        qualities(sums, None)


def test_one_prompt_is_too_few():
    sums = PromptSums(3, len(ESTIMATORS), 2)
    sums.add_nothing(0)
    with pytest.raises(ValueError, match="1 prompts have trajectories; at least 2"):
        qualities(sums, None)
