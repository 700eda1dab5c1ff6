"""The drift of log ρ_t against a window that widens like √t, exactly, for long responses.

Tokens are independent and of three kinds, so that a trajectory of t tokens is told by how many
there are of each: the distribution of log ρ_t and of M_t = Σ_{j≤t}(r_j - 1) is a sum over the
trinomial distribution, for t in the thousands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ctpo.theory.tables import Cell, Table

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

# Counts of the first kind that are treated at a time: 5,000 tokens make 12.5 million states.
_CHUNK = 256
POSITIONS = (10, 30, 100, 300, 1000, 2000, 5000)


@dataclass(frozen=True)
class ThreeTokens:
    """Independent tokens of three kinds.

    Attributes:
        old: Probabilities under π_old.
        new: Probabilities under π_θ.
    """

    old: tuple[float, float, float]
    new: tuple[float, float, float]

    @property
    def log_ratios(self) -> Float[Tensor, " 3"]:
        """Log ratio log r of each kind, in nats."""
        return (
            torch.tensor(self.new, dtype=torch.float64)
            / torch.tensor(self.old, dtype=torch.float64)
        ).log()

    @property
    def divergence(self) -> float:
        """KL(π_old‖π_θ) in nats per token."""
        return -float((torch.tensor(self.old, dtype=torch.float64) * self.log_ratios).sum())

    @property
    def spread(self) -> float:
        """Standard deviation of log r, σ."""
        old = torch.tensor(self.old, dtype=torch.float64)
        return float((old * (self.log_ratios + self.divergence) ** 2).sum().sqrt())


def usual(sigma: float = 0.036) -> ThreeTokens:
    """Return tokens whose log ratio has a given spread.

    Args:
        sigma: Standard deviation of log r; 0.036 is what the paper reports.
    """
    old = (0.47, 0.35, 0.18)
    direction = (1.0, -1.37, 0.31)

    def tokens(scale: float) -> ThreeTokens:
        weights = [p * math.exp(scale * d) for p, d in zip(old, direction, strict=True)]
        a, b, c = (w / sum(weights) for w in weights)
        return ThreeTokens(old, (a, b, c))

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if tokens(middle).spread < sigma else (low, middle)
    return tokens(high)


@dataclass(frozen=True)
class Outside:
    """Exact probabilities at one position, under π_old.

    Attributes:
        below: P(log ρ_t < -eps_low √t).
        above: P(log ρ_t > eps_high √t).
        below_free: P(M_t < -eps_low √t).
        above_free: P(M_t > eps_high √t).
        mean: E[log ρ_t].
        mean_free: E[M_t].
    """

    below: float
    above: float
    below_free: float
    above_free: float
    mean: float
    mean_free: float


def outside(
    tokens: ThreeTokens, t: int, *, eps_low: float = 0.025, eps_high: float = 0.05
) -> Outside:
    """Return how likely each statistic is to be outside its window after t tokens."""
    log_ratios = tokens.log_ratios
    steps = log_ratios.exp() - 1
    log_old = torch.tensor(tokens.old, dtype=torch.float64).log()
    log_factorials = torch.lgamma(torch.arange(t + 1, dtype=torch.float64) + 1)
    second = torch.arange(t + 1)[None, :]
    sums = torch.zeros(7, dtype=torch.float64)
    for start in range(0, t + 1, _CHUNK):
        first = torch.arange(start, min(start + _CHUNK, t + 1))[:, None]
        third = t - first - second
        possible = third >= 0
        counts = (first.double(), second.double(), third.clamp(min=0).double())
        log_probability = (
            log_factorials[t]
            - log_factorials[first]
            - log_factorials[second]
            - log_factorials[third.clamp(min=0)]
            + counts[0] * log_old[0]
            + counts[1] * log_old[1]
            + counts[2] * log_old[2]
        )
        probability = torch.where(possible, log_probability.exp(), 0.0)
        log_rho = sum(n * float(x) for n, x in zip(counts, log_ratios, strict=True))
        martingale = sum(n * float(x) for n, x in zip(counts, steps, strict=True))
        low, high = -eps_low * math.sqrt(t), eps_high * math.sqrt(t)
        sums += torch.stack(
            [
                probability.sum(),
                (probability * (log_rho < low)).sum(),
                (probability * (log_rho > high)).sum(),
                (probability * (martingale < low)).sum(),
                (probability * (martingale > high)).sum(),
                (probability * log_rho).sum(),
                (probability * martingale).sum(),
            ]
        )
    # lgamma is good to about 1e-12 at these sizes; the total says so.
    return Outside(*(float(x) for x in sums[1:] / sums[0]))


def drift_table() -> Table:
    """Return the share of log ρ_t and of M_t outside the √t window by position."""
    tokens = usual()
    rows: list[tuple[Cell, ...]] = []
    for t in POSITIONS:
        at = outside(tokens, t)
        gaussian = (-0.025 * math.sqrt(t) + t * tokens.divergence) / (tokens.spread * math.sqrt(t))
        rows.append(
            (
                t,
                at.mean,
                -t * tokens.divergence,
                at.below,
                0.5 * math.erfc(-gaussian / math.sqrt(2)),
                at.above,
                at.below_free,
                at.above_free,
            )
        )
    return Table(
        "drift",
        f"Outside the √t window (-0.025√t, 0.05√t); independent tokens, σ = {tokens.spread:.3f}, "
        f"KL {tokens.divergence:.3g} per token",
        (
            "t",
            "E log ρ_t",
            "-KL · t",
            "log ρ_t below",
            "normal approximation",
            "log ρ_t above",
            "M_t below",
            "M_t above",
        ),
        tuple(rows),
    )
