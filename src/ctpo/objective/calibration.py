"""A window that clips as much as is wanted, from recorded trajectories."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ctpo.objective.inputs import prepare
from ctpo.objective.parameters import is_number
from ctpo.objective.windows import LogWindow

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from ctpo.objective.inputs import Ragged

# Positions with fewer tokens say too little about a spread.
_MIN_TOKENS = 16


@dataclass(frozen=True)
class Calibration:
    """A window for the cumulative ratio and what it clips on the data it was made from.

    Attributes:
        window: The window; hand it to `Objective`, or its fields to `preset("ctpo", ...)`.
        clip_high: Share of the tokens with A > 0 above it.
        clip_low: Share of the tokens with A < 0 below it.
        clip_dual: Share of the tokens with A < 0 above the dual clip.
        power_error: Standard error of the fitted power, NaN if it was given.
        tokens: Policy tokens that it was made from.
    """

    window: LogWindow
    clip_high: float
    clip_low: float
    clip_dual: float
    power_error: float
    tokens: int


def calibrate(
    logprobs: Ragged,
    old_logprobs: Ragged,
    advantages: Ragged,
    mask: Ragged,
    *,
    clip_rate: float = 0.05,
    power: float | None = 0.5,
    cu_seqlens: Tensor | None = None,
) -> Calibration:
    """Return the log-space window on ρ_t that clips a wanted share of recorded tokens.

    eps_high is the quantile of log ρ_t / t^power, over tokens with A > 0, that leaves `clip_rate`
    of them above; eps_low the one over tokens with A < 0 that leaves as many below; dual_clip the
    one over tokens with A < 0 that leaves as many above. With `power=None` the exponent is fitted
    first: the slope of log std(log ρ_t) against log t, over positions with at least 16 tokens,
    weighted by tokens, which makes the clip rate as flat in t as a power law can.

    Reads back to the host.

    Args:
        logprobs: log π_θ in nats after some updates; layouts as for `Objective`.
        old_logprobs: log π_old in nats.
        advantages: Per response or per token.
        mask: 1 on policy tokens.
        clip_rate: Wanted share of clipped tokens on each side, above 0 and below 1.
        power: Exponent of the window, or None to fit it.
        cu_seqlens: For packed tokens.

    Raises:
        ValueError: Inputs do not fit (as for `Objective`), `clip_rate` is out of range, a sign of
            the advantage does not occur, the policy has not moved, or too few positions have
            enough tokens to fit a power.
    """
    if not (is_number(clip_rate) and 0 < clip_rate < 1):
        raise ValueError(f"clip_rate is {clip_rate!r}; it must be between 0 and 1, e.g. 0.05")
    if power is not None and not (is_number(power) and math.isfinite(power)):
        raise ValueError(f"power is {power!r}; it must be finite, e.g. 0.5, or None to fit it")
    batch = prepare(logprobs, old_logprobs, advantages, mask, cu_seqlens=cu_seqlens, check=True)
    layout = batch.layout
    difference = batch.logprobs.detach().double() - batch.old_logprobs.double()
    policy = layout.mask
    log_rho = layout.prefix_sums(torch.where(policy, difference, 0.0))[policy]
    positions = layout.positions.expand_as(policy)[policy].double()
    signs = batch.advantages.expand_as(policy)[policy]
    if not bool((log_rho != 0).any()):
        raise ValueError("log rho is 0 at every token: the policy has not moved, nothing to fit")
    for sign, some in (("> 0", signs > 0), ("< 0", signs < 0)):
        if not bool(some.any()):
            raise ValueError(f"no token has an advantage {sign}; both signs are needed")

    power_error = math.nan
    if power is None:
        power, power_error = _fit_power(log_rho, positions)
    scaled = log_rho / positions**power
    up, down = scaled[signs > 0], scaled[signs < 0]
    # Half a window that is not there clips nothing it should not: the bounds lie around 1.
    window = LogWindow(
        eps_low=max(-_quantile(down, clip_rate), 0.0),
        eps_high=max(_quantile(up, 1 - clip_rate), 0.0),
        power=power,
        dual_clip=max(_quantile(down, 1 - clip_rate), 1e-12),
    )
    assert window.dual_clip is not None
    return Calibration(
        window,
        clip_high=_share(up > window.eps_high),
        clip_low=_share(down < -window.eps_low),
        clip_dual=_share(down > window.dual_clip),
        power_error=power_error,
        tokens=len(log_rho),
    )


def _fit_power(
    log_rho: Float[Tensor, " tokens"], positions: Float[Tensor, " tokens"]
) -> tuple[float, float]:
    """Return the slope of log std(log ρ_t) against log t and its standard error."""
    at = positions.long()
    zeros = torch.zeros(int(at.max()) + 1, dtype=torch.float64, device=at.device)
    count = zeros.index_add(0, at, torch.ones_like(log_rho))
    mean = zeros.index_add(0, at, log_rho) / count.clamp(min=1)
    squares = zeros.index_add(0, at, (log_rho - mean[at]).square())
    std = (squares / (count - 1).clamp(min=1)).sqrt()
    enough = (count >= _MIN_TOKENS) & (std > 0)
    if int(enough.sum()) < 3:
        raise ValueError(
            f"only {int(enough.sum())} positions have at least {_MIN_TOKENS} tokens with a spread; "
            "three are needed to fit a power. Give one, e.g. power=0.5, or more trajectories"
        )
    x = enough.nonzero().flatten().double().log()
    y, weight = std[enough].log(), count[enough]
    x = x - (weight * x).sum() / weight.sum()
    y = y - (weight * y).sum() / weight.sum()
    slope = (weight * x * y).sum() / (weight * x.square()).sum()
    residual = (weight * (y - slope * x).square()).sum() / weight.sum() / (len(x) - 2)
    error = (residual * weight.sum() / (weight * x.square()).sum()).sqrt()
    return float(slope), float(error)


def _quantile(values: Float[Tensor, " n"], share: float) -> float:
    """Return the value below which `share` lies; torch.quantile refuses long inputs."""
    ordered = values.sort().values
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (place - low) * (ordered[high] - ordered[low]))


def _share(flags: Tensor) -> float:
    return float(flags.double().mean())
