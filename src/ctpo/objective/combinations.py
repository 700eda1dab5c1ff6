"""Which choices go together: what follows from what parts say about themselves."""

from __future__ import annotations

from ctpo.objective.parts import Choices, Ratio


def refuse_senseless(objective: Choices) -> None:
    """Raise if choices contradict each other, or one would have no effect.

    Args:
        objective: The choices; each has been made.

    Raises:
        ValueError: Says which, and what to do about it.
    """
    ratio, window, surrogate = objective.ratio, objective.window, objective.surrogate
    reason = None
    if window is None and surrogate.takes_window:
        reason = (
            f"{surrogate!r} needs a window, e.g. sqrt(0.025, 0.05); without a trust region the "
            "surrogate is 'plain'"
        )
    elif window is not None and not surrogate.takes_window:
        reason = f"{window!r} would have no effect on {surrogate!r}; leave it out"
    elif window is not None and window.follows_position and not _counts_factors(ratio):
        reason = (
            f"{window!r} follows the number of factors in the weight, but {ratio!r} is of the "
            "scale of one factor at every token, so power would have no effect; set power=0"
        )
    elif window is not None and surrogate.needs_weight_bound and not window.bounds_log_weight:
        reason = (
            f"{window!r} decides which tokens are clipped and has no bound of the weight for "
            f"{surrogate!r} to clip to; it goes with surrogate='clip'"
        )
    elif objective.gradient == "literal" and not surrogate.has_literal_gradient:
        reason = (
            f"{surrogate!r} is printed with its weight under stop-gradient, so its literal "
            "gradient is the token-local one; leave gradient out"
        )
    for part in (ratio, window, surrogate):
        if reason is None and part is not None:
            reason = part.refuses(objective)
    if reason is None and objective.gradient == "literal" and type(ratio).adjoint is Ratio.adjoint:
        reason = f"{ratio!r} has no `adjoint`, which the literal gradient needs; leave gradient out"
    if reason is not None:
        raise ValueError(reason)


def _counts_factors(ratio: Ratio) -> bool:
    return ratio.accumulates and type(ratio).factors is not Ratio.factors
