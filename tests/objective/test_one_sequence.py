import pytest
import torch

import ctpo
from ctpo.objective import PRESETS
from ctpo.objective.one_sequence import clipped, one_sequence


def sequence(seed, sign):
    random = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(40, generator=random)
    logprobs = (old + 0.15 * torch.randn(40, generator=random)).requires_grad_()
    mask = torch.rand(40, generator=random) > 0.25
    mask[0] = True
    return logprobs, old, sign * torch.rand(40, generator=random), mask


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", PRESETS)
def test_it_is_the_objective_traced_or_not(name, sign):
    objective = ctpo.preset(name)
    function = one_sequence(objective)
    logprobs, old, advantages, mask = sequence(3, sign)
    whole = objective(logprobs[None], old[None], advantages[None], mask[None]).per_token[0]
    # Each token's weight in the sum is its own, so that no gradient hides behind another's.
    weights = torch.rand(40, generator=torch.Generator().manual_seed(5))
    (expected,) = torch.autograd.grad((whole * weights).sum(), logprobs)
    for form in (function, torch.fx.symbolic_trace(function)):
        per_token = form(logprobs, old, advantages, mask.float())
        (gradient,) = torch.autograd.grad((per_token * weights).sum(), logprobs)
        torch.testing.assert_close(per_token, whole, rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)


def test_what_is_masked_is_never_read():
    function = one_sequence(ctpo.preset("ctpo"))
    logprobs, old, advantages, mask = sequence(4, 1.0)
    expected = function(logprobs, old, advantages, mask.float())
    spoilt = logprobs.detach().masked_fill(~mask, float("nan")).requires_grad_()
    given = function(spoilt, old.masked_fill(~mask, float("nan")), advantages, mask.float())
    torch.testing.assert_close(given, expected)
    (gradient,) = torch.autograd.grad(given.sum(), spoilt)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", PRESETS)
def test_the_tokens_called_clipped_are_those_that_the_statistics_count(name):
    seen = name in ("sapo", "topr", "vespo", "minpro")  # which clip nothing
    for sign in (1.0, -1.0):
        logprobs, old, _, mask = sequence(6, sign)
        old = old - sign * torch.linspace(-0.5, 3, 40)  # far out on the side that counts
        advantages = torch.tensor([0.7 * sign])
        counts = ctpo.preset(name)(
            logprobs[None], old[None], advantages, mask[None]
        ).statistics.to_columns()
        sides = [counts[f"clipped_{side}"] for side in ("high", "low", "dual")]
        found = clipped(ctpo.preset(name), logprobs, old, 0.7 * sign, mask)
        assert not found[~mask].any()
        seen |= bool(found.any())
        assert found[mask].int().tolist() == [sum(each) for each in zip(*sides, strict=True)]
    assert seen
