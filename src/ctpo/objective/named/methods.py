"""The published combinations of ratio, window and surrogate, by name."""

from __future__ import annotations

from dataclasses import dataclass

from ctpo.objective.named.names import ReductionName
from ctpo.objective.objective import Objective
from ctpo.objective.soft_surrogates import SAPOSurrogate, VESPOSurrogate
from ctpo.objective.windows import DriftFreeWindow, KLWindow, LogWindow, fixed, sqrt


@dataclass(frozen=True)
class Preset:
    """A method, published or yours.

    Attributes:
        objective: Ratio, window and surrogate with the published parameters.
        formula: The loss of a token, less its sign, in the notation of the docs.
        source: Where it comes from.
        reduction: The source's reduction, a key of `REDUCTIONS`; none is applied by the objective.
        advantages: The source's advantages, a function of `ctpo.objective`.
        note: What to know before using it.
    """

    objective: Objective
    formula: str = ""
    source: str = ""
    reduction: ReductionName = "seq-mean-token-mean"
    advantages: str = "group_normalized"
    note: str = ""


_CTPO = "arXiv 2605.07331"

PUBLISHED: dict[str, Preset] = {
    "ctpo": Preset(
        Objective(ratio="cumulative", window=sqrt(0.025, 0.05, dual_clip=0.05)),
        "min(ρ_t A, clip(ρ_t, e^(-.025√t), e^(.05√t)) A); A<0: at least e^(.05√t) A",
        f"CTPO, {_CTPO}, its public code",
        note="The printed objective and a dual clip.",
    ),
    "ctpo-printed": Preset(
        Objective(ratio="cumulative", window=sqrt(0.025, 0.05)),
        "min(ρ_t A, clip(ρ_t, e^(-.025√t), e^(.05√t)) A)",
        f"CTPO, {_CTPO}, as printed",
        note="Without the dual clip: a token with A<0 has no upper bound.",
    ),
    "ctpo-fixed": Preset(
        Objective(ratio="cumulative", window=fixed(0.5, 4.0, dual_clip=5.0)),
        "min(ρ_t A, clip(ρ_t, .5, 5) A); A<0: at least 5 A",
        f"CTPO, {_CTPO}, the ablation of the window",
        note="The paper gives the window [0.5, 5]; that the dual clip stays, at the upper edge "
        "as in `ctpo`, is our reading.",
    ),
    "ctpo-drift-free": Preset(
        Objective(
            ratio="cumulative",
            window=DriftFreeWindow(eps_low=0.025, eps_high=0.05, dual_clip=0.05),
        ),
        "as ctpo, with M_t = Σ_{j≤t}(r_j - 1) in place of log ρ_t in the window",
        "ours",
        note="M_t has mean 0 at every t, where log ρ_t drifts down.",
    ),
    "ctpo-exact-kl": Preset(
        Objective(
            ratio="cumulative",
            window=KLWindow(delta_low=0.025**2 / 2, delta_high=0.05**2 / 2, delta_dual=0.05**2 / 2),
        ),
        "as ctpo, with ρ_t - 1 - log ρ_t ≤ δt as the window",
        "ours",
        note="To second order the window of `ctpo`, with δ = ε²/2.",
    ),
    "pnpo": Preset(
        Objective(
            ratio="cumulative-geometric-mean",
            window=LogWindow(eps_low=0.025, eps_high=0.05, power=-0.5, dual_clip=0.05),
        ),
        "min(w A, clip(w, e^(-.025/√t), e^(.05/√t)) A), w = ρ_t^(1/t)",
        "PNPO, arXiv 2608.01418, ratio and exponent",
        note="The widths are those of `ctpo`, so that the two clip the same tokens.",
    ),
    "full-sequence": Preset(
        Objective(ratio="full-sequence", window=sqrt(0.025, 0.05, dual_clip=0.05)),
        "as ctpo, with ρ_H in place of ρ_t and a window that widens as √H",
        f"the sequence-level estimator {_CTPO} compares with",
        note="A baseline, not a published method: it differs from `ctpo` in the ratio only.",
    ),
    "grpo": Preset(
        Objective(ratio="token", window=fixed(0.2, 0.2)),
        "min(r_t A, clip(r_t, .8, 1.2) A)",
        "GRPO, arXiv 2402.03300",
    ),
    "dapo": Preset(
        Objective(ratio="token", window=fixed(0.2, 0.28)),
        "min(r_t A, clip(r_t, .8, 1.28) A)",
        "DAPO, arXiv 2503.14476",
        reduction="token-mean",
    ),
    "dr-grpo": Preset(
        Objective(ratio="token", window=fixed(0.2, 0.2)),
        "min(r_t A, clip(r_t, .8, 1.2) A)",
        "Dr. GRPO, arXiv 2503.20783",
        reduction="seq-mean-token-sum",
        advantages="group_centered",
        note="Differs from `grpo` outside the objective: no division by the deviation, "
        "and the sum over tokens, to be divided by a constant length.",
    ),
    "gspo": Preset(
        Objective(ratio="sequence-geometric-mean", window=fixed(3e-4, 4e-4), gradient="literal"),
        "min(s A, clip(s, 1 - 3e-4, 1 + 4e-4) A), s = ρ_H^(1/H)",
        "GSPO, arXiv 2507.18071",
        note="The gradient of the sequence's loss. With one advantage per sequence it is that "
        "of `gspo-token`.",
    ),
    "gspo-token": Preset(
        Objective(ratio="sequence-geometric-mean", window=fixed(3e-4, 4e-4)),
        "as gspo, with s_t = sg(s) π_θ(a_t)/sg(π_θ(a_t))",
        "GSPO, arXiv 2507.18071, token form",
        note="For advantages per token.",
    ),
    "gmpo": Preset(
        Objective(
            ratio="sequence-geometric-mean",
            window=LogWindow(eps_low=0.4, eps_high=0.4, power=0),
            surrogate="gmpo",
        ),
        "exp(1/H Σ_j clip(log r_j, ±.4)) A",
        "GMPO, arXiv 2507.20673",
    ),
    "cispo": Preset(
        Objective(ratio="token", window=fixed(1.0, 4.0), surrogate="cispo"),
        "sg(min(r_t, 5)) A log π_θ",
        "CISPO in MiniMax-M1, arXiv 2506.13585",
        reduction="token-mean",
        note="The source gives no number for the upper bound; 5 is that of arXiv 2510.13786.",
    ),
    "sapo": Preset(
        Objective(ratio="token", surrogate=SAPOSurrogate()),
        "(4/τ) σ(τ(r_t - 1)) A, τ = 1 for A>0, else 1.05",
        "SAPO, arXiv 2511.20347",
    ),
    "topr": Preset(
        Objective(ratio="full-sequence", surrogate="topr"),
        "sg(f) A log π_θ, f = 1 for A>0, else min(ρ_H, 1)",
        "TOPR, arXiv 2503.14286",
        reduction="seq-mean-token-sum",
    ),
    "vespo": Preset(
        Objective(ratio="full-sequence", surrogate=VESPOSurrogate()),
        "sg(ρ_H^k e^(λ(1 - ρ_H))) A log π_θ, (k, λ) = (2, 3) for A≥0, else (3, 2)",
        "VESPO, arXiv 2602.10693; parameters of TRL 1.16",
        reduction="token-mean",
    ),
    "minpro": Preset(
        Objective(ratio="minimum-prefix", window=fixed(1.0, 4.0), surrogate="cispo"),
        "sg(min(r_t · min_{i<t} r_i, 5)) A log π_θ",
        "MinPRO, arXiv 2601.22718",
        reduction="token-mean",
        note="The upper bound is that of `cispo`; the source's was not at hand.",
    ),
    "cppo": Preset(
        Objective(ratio="token", surrogate="cppo"),
        "r_t A where kept, else 0",
        "CPPO, arXiv 2606.10968, the rule",
        note="Weights of positions, divergence and parameters are our reading; see "
        "`CPPOSurrogate`.",
    ),
}
"""The methods, with formula, source and what goes with them outside the objective."""
