"""Why two log-probs of the same tokens differ: a fault of some shape, updates, or other weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ctpo.report.log_rows import Response
from ctpo.report.signatures import (
    NOISE,
    SIGMAS,
    Cause,
    Sample,
    other_rows,
    repetition,
    rounded,
    shifted,
    shifted_mask,
    temperature,
    template,
    truncated,
)


def find_cause(responses: Sequence[Response], must_agree: bool, tolerance: float = 1e-3) -> Cause:
    """Return why new and old log-probs differ.

    Args:
        responses: The log, or the first part of a long one; with at least one policy token.
        must_agree: Whether both are of the same weights, so that no update explains a difference.
        tolerance: Largest |log ρ_t| in nats that is none.
    """
    sample = Sample(responses)
    if (found := shifted_mask(responses)) is not None:
        return found
    if max(np.abs(np.cumsum(new - old)).max() for new, old in sample.rows) <= tolerance:
        return Cause("none", "old and new log-probs agree at every token")
    found = (
        shifted(sample)
        or other_rows(sample)
        or rounded(sample, wholly=True)
        or truncated(sample, strictly=True)
        or repetition(responses)
        or temperature(sample)
        or truncated(sample, strictly=False)
    )
    updated = not must_agree and sample.gain > SIGMAS
    return (
        found
        or (None if updated else template(sample, must_agree))
        or rounded(sample, wholly=False)
        or (_weights(sample) if must_agree else _updates(sample))
    )


def _updates(sample: Sample) -> Cause:
    """What is left where the policy may have moved."""
    if sample.gain < (-SIGMAS if sample.drift < SIGMAS else -SIGMAS / 2):
        words = "log r falls with the advantage: old and new log-probs look swapped"
        advice = "logprobs are the policy's after the updates, old_logprobs those before"
        return Cause("swapped columns", words, advice, ("a loss with the wrong sign",))
    if sample.drift > SIGMAS and sample.gain < SIGMAS:
        words = (
            f"log r is {sample.log_r.mean():+.2g} on average, {sample.drift:.0f} standard errors "
            "above 0; of tokens that the old policy sampled it cannot be. The old log-probs are of "
            "the wrong policy: not of the one that sampled"
        )
        advice = "take them from the weights that sampled, before the first update"
        also = ["old and new log-probs swapped"]
        also += ["another prompt or template"] * (sample.correlation < 0.6)
        return Cause("wrong policy", words, advice, tuple(also))
    small = np.quantile(np.abs(sample.log_r), 0.99) < NOISE
    if small and max(abs(sample.drift), abs(sample.gain)) < SIGMAS:
        words = "log r is as small as rounding (logits in bfloat16) or a short update makes it; "
        words += "cannot tell which"
        return Cause("small differences", words, "try a batch before any update, with --on-policy")
    words = "log-probs differ as updates make them: no sign of a mismatch"
    other = "another prompt" if sample.correlation < 0.6 else "a generator with other weights"
    return Cause("updates", words, also=(other,))


def _weights(sample: Sample) -> Cause:
    """What is left where both sides are of the same weights."""
    typical, drift = float(np.quantile(np.abs(sample.log_r), 0.99)), sample.drift
    if typical < NOISE and abs(drift) < SIGMAS:
        words = f"log r is small (99 % within {typical:.2g} nats) and of both signs: rounding, as "
        words += "of logits in bfloat16 or of computing at other shapes"
        advice = "compute logits and log-probs in float32, both sides on the same micro-batches"
        return Cause("rounding", words, advice, ("weights that differ a little",))
    if drift > SIGMAS:
        words = "the old log-probs are of the wrong policy: not of the one that sampled"
        advice = "take them from the weights that sampled, before the first update"
        return Cause("wrong policy", words, advice, ("old and new log-probs swapped",))
    words = "the two sides are models with other weights: a wrong or stale policy"
    words += "" if drift < -SIGMAS else "; cannot tell which of them sampled"
    advice = "synchronise the generator's weights before each batch; turn dropout off"
    return Cause("other weights", words, advice, ("a repetition penalty", "another prompt"))
