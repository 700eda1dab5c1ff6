"""Both gradients against autograd of the printed objective, one scalar operation at a time.

The reference is written token by token in float64 scalars that autograd follows. For the literal
gradient it is left as it is printed; for the token-local one, every log ratio other than the
token's own is detached inside its weight.
"""

import math
from typing import Literal

import pytest
import torch

from ctpo.objective import (
    PRESETS,
    DriftFreeWindow,
    KLWindow,
    LogWindow,
    Objective,
    SAPOSurrogate,
    fixed,
    preset,
    sqrt,
)


def log_weight(ratio, log_r, t, literal):
    """log w of the token with 0-based index t, from the scalar log ratios of its row."""
    others = [x if literal or j == t else x.detach() for j, x in enumerate(log_r)]
    if ratio == "token":
        return log_r[t]
    if ratio == "cumulative":
        return sum(others[: t + 1])
    if ratio == "minimum-prefix":
        return log_r[t] + (min(others[:t]) if t else 0.0)
    if literal:
        if ratio == "cumulative-geometric-mean":
            return sum(others[: t + 1]) / (t + 1)
        return sum(others) / (len(others) if ratio == "sequence-geometric-mean" else 1)
    # sg(w) π/sg(π): a token's own share of a mean is not divided by the number of its terms.
    value = log_weight(ratio, [x.detach() for x in log_r], t, literal=True)
    return value + log_r[t] - log_r[t].detach()


def loss(objective, log_r, t, advantage):
    """The printed loss of one token, as a scalar with a graph."""
    literal = objective.gradient == "literal"
    names = {"TokenRatio": "token", "CumulativeRatio": "cumulative"}
    names |= {"CumulativeGeometricMeanRatio": "cumulative-geometric-mean"}
    names |= {"FullSequenceRatio": "full-sequence", "MinimumPrefixRatio": "minimum-prefix"}
    names |= {"SequenceGeometricMeanRatio": "sequence-geometric-mean"}
    ratio = names[type(objective.ratio).__name__]
    w = log_weight(ratio, log_r, t, literal).exp()
    surrogate, window = objective.surrogate, objective.window
    if isinstance(surrogate, SAPOSurrogate):
        tau = surrogate.tau_pos if advantage > 0 else surrogate.tau_neg
        return -4 / tau * torch.sigmoid(tau * (w - 1)) * advantage
    if window is None:
        return -w * advantage
    n = {"cumulative": t + 1, "cumulative-geometric-mean": t + 1, "full-sequence": len(log_r)}
    width = n.get(ratio, 1)
    if isinstance(window, DriftFreeWindow):
        moved = float(sum(x.detach().exp() - 1 for x in log_r[: t + 1]))
        scale = width**window.power
        dual = math.inf if window.dual_clip is None else window.dual_clip * scale
        if advantage > 0:
            inside = moved <= window.eps_high * scale
        else:
            inside = -window.eps_low * scale <= moved <= dual
        return -(w if inside else w.detach()) * advantage
    if isinstance(window, KLWindow):
        k3 = float(w.detach() - 1 - w.detach().log())
        above = w > 1
        budget = window.delta_high if advantage > 0 else window.delta_dual
        if not above:
            budget = None if advantage > 0 else window.delta_low
        inside = budget is None or k3 <= budget * width
        return -(w if inside else w.detach()) * advantage
    if isinstance(window, LogWindow):
        scale = width**window.power
        low, high = math.exp(-window.eps_low * scale), math.exp(window.eps_high * scale)
        dual = None if window.dual_clip is None else math.exp(window.dual_clip * scale)
    else:
        low, high, dual = 1 - window.clip_low, 1 + window.clip_high, window.dual_clip
    result = -torch.minimum(w * advantage, w.clamp(low, high) * advantage)
    if dual is not None and advantage < 0:
        result = torch.minimum(result, torch.tensor(-dual * advantage, dtype=torch.float64))
    return result


WINDOWS = {
    "cumulative": sqrt(0.05, 0.1, dual_clip=0.15),
    "cumulative-geometric-mean": LogWindow(eps_low=0.05, eps_high=0.1, power=-0.5, dual_clip=0.15),
    "full-sequence": sqrt(0.05, 0.1),
    "sequence-geometric-mean": fixed(0.02, 0.02, dual_clip=1.05),
    "token": fixed(0.1, 0.1, dual_clip=1.2),
}
ACCUMULATING = ["cumulative", "cumulative-geometric-mean", "full-sequence"]
LITERAL = [*ACCUMULATING, "sequence-geometric-mean"]


def cases():
    gradient: Literal["literal", "token-local"]
    for gradient, ratios in (
        ("literal", LITERAL),
        ("token-local", [*LITERAL, "token", "minimum-prefix"]),
    ):
        for ratio in ratios:
            for surrogate in ("clip", "plain", "sapo"):
                if surrogate == "clip" and ratio == "minimum-prefix":
                    continue
                window = WINDOWS[ratio] if surrogate == "clip" else None
                yield (
                    f"{ratio}-{surrogate}-{gradient}",
                    Objective(ratio=ratio, surrogate=surrogate, window=window, gradient=gradient),  # type: ignore[arg-type]
                )
    for gradient in ("token-local", "literal"):
        for name in ("ctpo-drift-free", "ctpo-exact-kl", "ctpo-fixed", "ctpo-printed"):
            yield f"{name}-{gradient}", preset(name, gradient=gradient)


CASES = dict(cases())


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("per_token", [False, True])
def test_gradient_equals_autograd_of_the_printed_objective(case, per_token, make_batch):
    """With a random weight on every token's loss, so that no two tokens can be mixed up."""
    objective = CASES[case]
    logprobs, old_logprobs, advantages, mask = make_batch(
        6, 7, seed=8, scale=0.1, dtype=torch.float64
    )
    generator = torch.Generator().manual_seed(4)
    upstream = torch.randn(6, 7, generator=generator, dtype=torch.float64)
    if per_token:
        advantages = torch.randn(6, 7, generator=generator, dtype=torch.float64)
    out = objective(logprobs, old_logprobs, advantages, mask)
    (actual,) = torch.autograd.grad((out.per_token * upstream).sum(), logprobs)

    total = torch.zeros((), dtype=torch.float64)
    losses = torch.zeros(6, 7, dtype=torch.float64)
    for b in range(6):
        places = mask[b].nonzero().flatten().tolist()
        log_r = [logprobs[b, i] - old_logprobs[b, i] for i in places]
        for t, place in enumerate(places):
            advantage = float(advantages[b, place] if per_token else advantages[b])
            each = loss(objective, log_r, t, advantage)
            losses[b, place] = each.detach()
            total = total + each * upstream[b, place]
    (expected,) = torch.autograd.grad(total, logprobs)
    assert expected.any()
    torch.testing.assert_close(out.per_token.detach(), losses, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-13)
    if "literal" in case and "fixed" not in case:
        local = torch.autograd.grad(
            (
                Objective(
                    ratio=objective.ratio, window=objective.window, surrogate=objective.surrogate
                )(logprobs, old_logprobs, advantages, mask).per_token
                * upstream
            ).sum(),
            logprobs,
        )[0]
        assert not torch.allclose(actual, local)


def gradients(names, advantages, make_batch):
    logprobs, old_logprobs, per_response, mask = make_batch(
        5, 8, seed=2, scale=0.0007, dtype=torch.float64
    )
    results = []
    for name in names:
        out = preset(name)(
            logprobs, old_logprobs, per_response if advantages is None else advantages, mask
        )
        (slope,) = torch.autograd.grad(out.mean("seq-mean-token-mean"), logprobs)
        results.append((out.per_token.detach(), slope))
    return results


def test_gspo_is_its_token_form_where_a_sequence_has_one_advantage(make_batch):
    sequence, token = gradients(("gspo", "gspo-token"), None, make_batch)
    assert torch.equal(sequence[0], token[0])
    torch.testing.assert_close(sequence[1], token[1], rtol=1e-12, atol=1e-15)
    assert sequence[1].any()


def test_gspo_differs_from_its_token_form_where_tokens_have_their_own_advantages(make_batch):
    generator = torch.Generator().manual_seed(1)
    advantages = torch.rand(5, 8, generator=generator, dtype=torch.float64) + 0.1
    sequence, token = gradients(("gspo", "gspo-token"), advantages, make_batch)
    assert torch.equal(sequence[0], token[0])
    assert not torch.allclose(sequence[1], token[1], rtol=0.01, atol=0)
    # The sequence's weight has every token in it alike: each gets the mean.
    torch.testing.assert_close(sequence[1].sum(dim=1), token[1].sum(dim=1), rtol=1e-12, atol=1e-15)


def test_gmpo_is_the_gradient_of_its_sequence_loss(make_batch):
    """exp(mean_j clip(log r_j)) differentiated by autograd, against token-local slopes."""
    logprobs, old_logprobs, advantages, mask = make_batch(
        9, 8, seed=3, scale=0.4, dtype=torch.float64
    )
    out = PRESETS["gmpo"](logprobs, old_logprobs, advantages, mask)
    (actual,) = torch.autograd.grad(out.mean("seq-mean-token-mean"), logprobs)
    losses = []
    for b in range(9):
        log_r = (logprobs[b] - old_logprobs[b])[mask[b]]
        clipped = log_r.clamp(max=0.4) if advantages[b] > 0 else log_r.clamp(min=-0.4)
        losses.append(-clipped.mean().exp() * advantages[b])
    loss = torch.stack(losses).mean()
    torch.testing.assert_close(out.mean("seq-mean-token-mean"), loss, rtol=1e-12, atol=0)
    (expected,) = torch.autograd.grad(loss, logprobs)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-15)
    assert (expected[mask] == 0).any()
