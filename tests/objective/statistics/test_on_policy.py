"""The check of a batch that should be on-policy: it passes, and tells simulated causes apart.

Tokens are sampled from real categoricals, a different one at each place, so that log r_t is what
the cause makes of it and not a made-up distribution.
"""

import math

import pytest
import torch

from ctpo.objective import PositionStatistics, preset

ROWS, COLUMNS, VOCABULARY = 48, 120, 40


class Policy:
    """Logits at each place, and tokens sampled from them or from a truncation."""

    def __init__(self, seed=0):
        self.generator = torch.Generator().manual_seed(seed)
        self.logits = 2.5 * self.normal(ROWS, COLUMNS, VOCABULARY)

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def sample(self, logits):
        flat = logits.softmax(dim=-1).view(-1, VOCABULARY)
        picked = torch.multinomial(flat, 1, generator=self.generator)
        return picked.view(ROWS, COLUMNS, 1)

    def logprobs(self, tokens, logits=None):
        logits = self.logits if logits is None else logits
        return logits.log_softmax(dim=-1).gather(2, tokens)[:, :, 0]

    def top_p(self, share):
        """Logits of the smallest set of tokens that holds `share` of the mass."""
        ordered, places = self.logits.softmax(dim=-1).sort(dim=-1, descending=True)
        cut = ordered.cumsum(dim=-1) - ordered >= share
        return self.logits.masked_fill(cut.gather(2, places.argsort(dim=-1)), -math.inf)

    def top_k(self, k):
        least = self.logits.topk(k, dim=-1).values[..., -1:]
        return self.logits.masked_fill(self.logits < least, -math.inf)


def report(new, old, **kwargs):
    mask = torch.ones(new.shape, dtype=torch.bool)
    mask[::3, ::7] = False
    out = preset("ctpo")(new.float(), old.float(), torch.ones(len(new)), mask)
    return out.statistics.on_policy_check(**kwargs)


def test_the_same_log_probs_pass():
    policy = Policy()
    logprobs = policy.logprobs(policy.sample(policy.logits))
    said = report(logprobs, logprobs)
    assert (said.passes, said.worst, said.drift, said.cause) == (True, 0.0, 0.0, "none")
    assert str(said) == "on-policy: largest |log rho| is 0"


def test_rounding_in_float32_passes():
    policy = Policy()
    tokens = policy.sample(policy.logits)
    single = policy.logprobs(tokens, policy.logits.float())
    said = report(single, policy.logprobs(tokens))
    assert said.passes
    assert 0 < said.worst < 1e-3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cut", [("top_p", 0.95), ("top_p", 0.99), ("top_k", 10)])
def test_truncated_sampling_is_named(cut, seed):
    """Old log-probs of the renormalised truncation: every log r is the log of the kept mass."""
    policy = Policy(seed)
    truncated = getattr(policy, cut[0])(cut[1])
    tokens = policy.sample(truncated)
    said = report(policy.logprobs(tokens), policy.logprobs(tokens, truncated))
    assert not said.passes
    assert said.cause == "truncated sampling"
    assert said.drift < 0
    assert "top_p" in str(said) and str(said).startswith("NOT on-policy")


def test_truncated_sampling_is_named_where_the_trainer_is_the_one_that_cuts():
    policy = Policy()
    truncated = policy.top_p(0.95)
    tokens = policy.sample(truncated)
    said = report(policy.logprobs(tokens, truncated), policy.logprobs(tokens))
    assert said.cause == "truncated sampling"
    assert said.drift > 0


@pytest.mark.parametrize("seed", range(3))
def test_rounding_to_bfloat16_is_named(seed):
    policy = Policy(seed)
    logprobs = policy.logprobs(policy.sample(policy.logits))
    for new, old in (
        (logprobs, logprobs.bfloat16()),
        (logprobs.bfloat16(), logprobs),
        ((logprobs + 1e-3 * policy.normal(ROWS, COLUMNS)).bfloat16(), logprobs.bfloat16()),
    ):
        said = report(new, old)
        assert not said.passes
        assert said.cause == "rounding"
        assert "bfloat16" in str(said)


@pytest.mark.parametrize("seed", range(3))
def test_another_model_is_named(seed):
    """Weights that were not synchronised: tokens are the old model's, so that log r drifts down."""
    policy = Policy(seed)
    tokens = policy.sample(policy.logits)
    other = policy.logits + 0.3 * policy.normal(ROWS, COLUMNS, VOCABULARY)
    said = report(policy.logprobs(tokens, other), policy.logprobs(tokens))
    assert not said.passes
    assert said.cause == "engine mismatch"
    assert said.drift < 0
    assert "engine" in str(said)


@pytest.mark.parametrize("temperature", [0.7, 1.3])
def test_another_temperature_is_named_with_other_models(temperature):
    """Its log r has both signs: likely tokens gain what unlikely ones lose."""
    policy = Policy()
    scaled = policy.logits / temperature
    tokens = policy.sample(scaled)
    said = report(policy.logprobs(tokens), policy.logprobs(tokens, scaled))
    assert said.cause == "engine mismatch"
    assert "temperature" in str(said)


@pytest.mark.parametrize("drift", [-2e-3, 2e-3])
def test_small_noise_with_a_drift_is_no_rounding(drift):
    policy = Policy()
    logprobs = policy.logprobs(policy.sample(policy.logits))
    new = logprobs + 5e-3 * policy.normal(ROWS, COLUMNS) + drift
    said = report(new, logprobs)
    assert said.cause == "engine mismatch"
    assert said.drift == pytest.approx(drift, rel=0.2)


def test_masks_shifted_by_a_token_are_named():
    policy = Policy()
    logprobs = policy.logprobs(policy.sample(policy.logits))
    said = report(logprobs.roll(1, dims=1), logprobs)
    assert said.cause == "engine mismatch"


def test_the_tolerance_is_on_the_largest_log_rho():
    log_r = torch.zeros(2, 3, dtype=torch.float64)
    log_r[1] = torch.tensor([0.01, 0.02, -0.05])
    out = preset("ctpo")(log_r, torch.zeros(2, 3), torch.ones(2), torch.ones(2, 3))
    said = out.statistics.on_policy_check(tolerance=0.0301)
    assert (said.passes, said.cause) == (True, "none")
    assert said.worst == pytest.approx(0.03)
    assert not out.statistics.on_policy_check(tolerance=0.0299).passes


def test_the_drift_is_at_the_last_position_that_half_of_the_sequences_reach():
    log_r = torch.full((4, 6), 0.01, dtype=torch.float64)
    log_r[0, 4:] = 9.0
    mask = torch.ones(4, 6)
    mask[1:, 4:] = 0
    out = preset("ctpo")(log_r, torch.zeros(4, 6), torch.ones(4), mask)
    assert out.statistics.on_policy_check().drift == pytest.approx(0.01)


def test_nan_does_not_pass():
    log_r = torch.zeros(1, 3)
    log_r[0, 1] = math.nan
    out = preset("ctpo")(log_r, torch.zeros(1, 3), torch.ones(1), torch.ones(1, 3))
    said = out.statistics.on_policy_check()
    assert not said.passes
    assert math.isnan(said.worst)


def test_a_position_the_mean_hides_is_seen():
    """A drift that cancels over the batch is no agreement."""
    log_r = torch.tensor([[0.1, -0.2], [-0.1, 0.2]], dtype=torch.float64)
    out = preset("ctpo")(log_r, torch.zeros(2, 2), torch.ones(2), torch.ones(2, 2))
    assert not out.statistics.on_policy_check().passes


@pytest.mark.parametrize("tolerance", [-1e-3, math.nan, math.inf])
def test_a_bad_tolerance_raises(tolerance, make_batch):
    statistics = preset("ctpo")(*make_batch(2, 3)).statistics
    with pytest.raises(ValueError, match=f"tolerance is {tolerance}; it must be finite and at"):
        statistics.on_policy_check(tolerance=tolerance)


def test_no_tokens_raise():
    with pytest.raises(ValueError, match="there are no policy tokens to check"):
        PositionStatistics.zeros().on_policy_check()
