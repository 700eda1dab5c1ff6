"""Names of ratios and surrogates, and which choices do not go together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctpo.objective.parameters import unknown_name
from ctpo.objective.ratios import (
    CumulativeGeometricMeanRatio,
    CumulativeRatio,
    FullSequenceRatio,
    MinimumPrefixRatio,
    Ratio,
    SequenceGeometricMeanRatio,
    TokenRatio,
)
from ctpo.objective.soft_surrogates import (
    CISPOSurrogate,
    CPPOSurrogate,
    GMPOSurrogate,
    SAPOSurrogate,
    TOPRSurrogate,
    VESPOSurrogate,
)
from ctpo.objective.surrogates import ClippedSurrogate, PlainSurrogate, Surrogate

if TYPE_CHECKING:
    from ctpo.objective.objective import Objective

RATIOS: dict[str, type[Ratio]] = {
    "token": TokenRatio,
    "cumulative": CumulativeRatio,
    "cumulative-geometric-mean": CumulativeGeometricMeanRatio,
    "full-sequence": FullSequenceRatio,
    "sequence-geometric-mean": SequenceGeometricMeanRatio,
    "minimum-prefix": MinimumPrefixRatio,
}
"""The ratios by name."""

SURROGATES: dict[str, type[Surrogate]] = {
    "clip": ClippedSurrogate,
    "plain": PlainSurrogate,
    "cispo": CISPOSurrogate,
    "sapo": SAPOSurrogate,
    "topr": TOPRSurrogate,
    "vespo": VESPOSurrogate,
    "gmpo": GMPOSurrogate,
    "cppo": CPPOSurrogate,
}
"""The surrogates by name."""


def named(name: str, value: object, kind: type, known: dict[str, type[Any]]) -> object:
    """Return a choice, made with its default parameters if only its name was given.

    Args:
        name: What is chosen, for the message.
        value: The choice or its name.
        kind: What it must be.
        known: Choices by name.

    Raises:
        TypeError: If it is neither a name nor of that kind.
        ValueError: If there is no such name; names the nearest.
    """
    if isinstance(value, str):
        if value not in known:
            raise unknown_name(name, value, known)
        return known[value]()
    if not isinstance(value, kind):
        raise TypeError(
            f"{name} must be an instance of {kind.__name__} or one of {', '.join(known)}, got "
            f"{value!r}"
        )
    return value


def refuse_senseless(objective: Objective) -> None:
    """Raise if choices contradict each other, or one would have no effect."""
    ratio, window, surrogate = objective.ratio, objective.window, objective.surrogate
    if window is None and surrogate.takes_window:
        raise ValueError(
            f"{surrogate!r} needs a window, e.g. sqrt(0.025, 0.05); without a trust region the "
            "surrogate is 'plain'"
        )
    if window is not None and not surrogate.takes_window:
        raise ValueError(f"{window!r} would have no effect on {surrogate!r}; leave it out")
    if window is not None and window.follows_position and not ratio.accumulates:
        raise ValueError(
            f"{window!r} follows the number of factors in the weight, but {ratio!r} is of the "
            "scale of one factor at every token, so power would have no effect; set power=0"
        )
    if window is not None and not window.bounds_log_weight:
        if not isinstance(surrogate, ClippedSurrogate):
            raise ValueError(
                f"{window!r} decides which tokens are clipped and has no bound of the weight for "
                f"{surrogate!r} to clip to; it goes with surrogate='clip'"
            )
        if not isinstance(ratio, CumulativeRatio):
            raise ValueError(f"{window!r} is about the cumulative ratio, not {ratio!r}")
    if isinstance(surrogate, GMPOSurrogate):
        if not isinstance(ratio, SequenceGeometricMeanRatio):
            raise ValueError(
                f"{surrogate!r} is a geometric mean over the sequence; set "
                f"ratio='sequence-geometric-mean', not {ratio!r}"
            )
        if getattr(window, "dual_clip", None) is not None:
            raise ValueError("dual_clip would have no effect on GMPO; set dual_clip=None")
    if isinstance(surrogate, CISPOSurrogate) and getattr(window, "dual_clip", None) is not None:
        raise ValueError(
            "dual_clip would have no effect on CISPO, whose upper bound holds for both signs of "
            "the advantage; set dual_clip=None"
        )
    if isinstance(surrogate, CPPOSurrogate) and not isinstance(ratio, TokenRatio):
        raise ValueError(f"{surrogate!r} weighs tokens by their own ratio; set ratio='token'")
    if objective.gradient == "literal":
        if not surrogate.has_literal_gradient:
            raise ValueError(
                f"{surrogate!r} is printed with its weight under stop-gradient, so its literal "
                "gradient is the token-local one; leave gradient out"
            )
        if isinstance(ratio, TokenRatio):
            raise ValueError(
                "the literal gradient of a token ratio is the token-local one; leave gradient out"
            )
        if isinstance(ratio, MinimumPrefixRatio):
            raise ValueError(
                "the minimum prefix ratio is used under stop-gradient and has no literal gradient"
            )
