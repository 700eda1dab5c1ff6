"""Presets: hand-computed numbers, overrides, and errors that name what would be right."""

from math import log
from typing import NamedTuple, get_args

import pytest
import torch

from ctpo import objective as room
from ctpo.objective import (
    METHODS,
    PRESETS,
    RATIOS,
    REDUCTIONS,
    SURROGATES,
    CumulativeRatio,
    LogWindow,
    Mismatch,
    Objective,
    parameters,
    preset,
)
from ctpo.objective.named.methods import PUBLISHED
from ctpo.objective.named.names import (
    Changes,
    PresetName,
    RatioName,
    ReductionName,
    SurrogateName,
)


class Row(NamedTuple):
    """log r_t, the advantage, loss per token, dL/dlogp per token, and log π_old of each token."""

    log_ratios: list[float]
    advantage: float
    loss: list[float]
    slope: list[float]
    old: float = 0.0


# GRPO and Dr. GRPO differ outside the objective only.
_GRPO = [
    # r = 1.2840, 1.1052, .7408: the first is above 1.2; A > 0 has no lower bound.
    Row([0.25, 0.1, -0.3], 1.0, [-1.2, -1.1051709, -0.7408182], [0, -1.1051709, -0.7408182]),
    # r = 1.2840, .8187, .7408: the last is below .8; A < 0 has no upper bound.
    Row([0.25, -0.2, -0.3], -2.0, [2.5680508, 1.6374615, 1.6], [2.5680508, 1.6374615, 0]),
]
# With one advantage per sequence, the gradient of a sequence's loss and its token form agree.
_GSPO = [
    # Mean log r = .0003, .0005 (above log 1.0004 = .00039992), -.0004 (below log .9997).
    Row([0.0008, -0.0002, 0.0003], 1.0, [-1.0003000] * 3, [-1.0003000] * 3),
    Row([0.001, 0.001, -0.0005], 2.0, [-2.0008] * 3, [0, 0, 0]),
    Row([-0.0012, 0.0, 0.0], -1.0, [0.9997] * 3, [0, 0, 0]),
]

BY_HAND: dict[str, list[Row]] = {
    "ctpo": [
        # log ρ = .04, .06, .09; bounds .05√t = .05, .0707, .0866: the third is cut to e^.0866.
        Row(
            [0.04, 0.02, 0.03],
            1.0,
            [-1.0408108, -1.0618365, -1.0904632],
            [-1.0408108, -1.0618365, 0],
        ),
        # log ρ = -.03, -.01, .19; lower bounds -.025, -.0354, -.0433; dual clip at .0866.
        Row([-0.03, 0.02, 0.2], -1.0, [0.9753099, 0.9900498, 1.0904632], [0, 0.9900498, 0]),
    ],
    "ctpo-printed": [
        Row(
            [0.04, 0.02, 0.03],
            1.0,
            [-1.0408108, -1.0618365, -1.0904632],
            [-1.0408108, -1.0618365, 0],
        ),
        # Without the dual clip the third keeps ρ = e^.19.
        Row([-0.03, 0.02, 0.2], -1.0, [0.9753099, 0.9900498, 1.2092496], [0, 0.9900498, 1.2092496]),
    ],
    "ctpo-fixed": [
        # log ρ = 1, 1.5, 1.7 against log 5 = 1.6094.
        Row([1.0, 0.5, 0.2], 1.0, [-2.7182818, -4.4816891, -5], [-2.7182818, -4.4816891, 0]),
        # log ρ = -.5, -.7, 1.7 against log .5 = -.6931 and the dual clip at 5.
        Row([-0.5, -0.2, 2.4], -1.0, [0.6065307, 0.5, 5], [0.6065307, 0, 0]),
    ],
    "ctpo-drift-free": [
        # M = .04, .06, .09 against .05, .0707, .0866; ρ = 1.04, 1.04·1.02, 1.0608·1.03.
        Row(
            [log(1.04), log(1.02), log(1.03)], 1.0, [-1.04, -1.0608, -1.092624], [-1.04, -1.0608, 0]
        ),
        # M = -.03, -.01, .19 against -.025, -.0354 and the dual clip at .0866.
        Row([log(0.97), log(1.02), log(1.2)], -1.0, [0.97, 0.9894, 1.18728], [0, 0.9894, 0]),
        # M = .3 (dual), -.02, -.02; log ρ_2 = log .884 = -.123 would be outside -.0354.
        Row([log(1.3), log(0.68), 0.0], -1.0, [1.3, 0.884, 0.884], [0, 0.884, 0.884]),
    ],
    "ctpo-exact-kl": [
        # log ρ = .04, .06, .09: e^x - 1 - x = .000811, .001837, .004174 against .00125 t.
        Row(
            [0.04, 0.02, 0.03],
            1.0,
            [-1.0408108, -1.0618365, -1.0941743],
            [-1.0408108, -1.0618365, 0],
        ),
        # log ρ = -.03, -.01, .19: .000446, .00005, .01925 against .0003125 t below, .00125 t above.
        Row([-0.03, 0.02, 0.2], -1.0, [0.9704455, 0.9900498, 1.2092496], [0, 0.9900498, 0]),
        # log ρ = .0499 is inside .05, yet .001266 is above .00125; at t = 2 it is inside .0025.
        Row([0.0499, 0.0, 0.0], 1.0, [-1.0511660] * 3, [0, -1.0511660, -1.0511660]),
    ],
    "pnpo": [
        # log w = .04, .06/2, .09/3 against .05/√t = .05, .0354, .0288675: the third is cut.
        Row(
            [0.04, 0.02, 0.03],
            1.0,
            [-1.0408108, -1.0304545, -1.0292882],
            [-1.0408108, -1.0304545, 0],
        ),
        # log w = -.03, -.01/2, .19/3 against -.025, -.0177 and the dual clip at .0288675.
        Row([-0.03, 0.02, 0.2], -1.0, [0.9753099, 0.9950125, 1.0292882], [0, 0.9950125, 0]),
    ],
    "full-sequence": [
        # log ρ_H = .08, .09, .19 and -.03, in a window of .0866 above and -.0433 below.
        Row([0.04, 0.02, 0.02], 1.0, [-1.0832871] * 3, [-1.0832871] * 3),
        Row([0.04, 0.02, 0.03], 1.0, [-1.0904632] * 3, [0, 0, 0]),
        Row([-0.03, 0.02, 0.2], -1.0, [1.0904632] * 3, [0, 0, 0]),
        Row([-0.03, 0.0, 0.0], -1.0, [0.9704455] * 3, [0.9704455] * 3),
    ],
    "grpo": _GRPO,
    "dr-grpo": _GRPO,
    "dapo": [
        # r = 1.2840, 1.2214, .7408: the first is above 1.28, the second would be above 1.2.
        Row([0.25, 0.2, -0.3], 1.0, [-1.28, -1.2214028, -0.7408182], [0, -1.2214028, -0.7408182]),
        Row([0.25, -0.2, -0.3], -1.0, [1.2840254, 0.8187308, 0.8], [1.2840254, 0.8187308, 0]),
    ],
    "gspo": _GSPO,
    "gspo-token": _GSPO,
    "gmpo": [
        # A > 0 clips above only: (.4 + .1 - .5)/3 = 0.
        Row([0.7, 0.1, -0.5], 1.0, [-1, -1, -1], [0, -1, -1]),
        # A < 0 clips below only: (.7 + .1 - .4)/3 = .1333.
        Row([0.7, 0.1, -0.5], -1.0, [1.1426308] * 3, [1.1426308, 1.1426308, 0]),
    ],
    "cispo": [
        # r = 7.39 (cut to 5), 1.6487, .3679; log π = -1, -2.5, -4; L = -f A log π.
        Row(
            [2.0, 0.5, -1.0],
            1.0,
            [5.0, 4.1218032, 1.4715178],
            [-5.0, -1.6487213, -0.3678794],
            old=-3.0,
        ),
        Row(
            [2.0, 0.5, -1.0],
            -2.0,
            [-10.0, -8.2436064, -2.9430355],
            [10.0, 3.2974425, 0.7357589],
            old=-3.0,
        ),
    ],
    "sapo": [
        # r = 1.5, 1, .5, τ = 1: σ(.5) = .6224593, .5, .3775407; L = -4σ A, slope -4σ(1-σ) r A.
        Row(
            [log(1.5), 0.0, log(0.5)],
            1.0,
            [-2.4898373, -2.0, -1.5101627],
            [-1.4100223, -1.0, -0.4700074],
        ),
        # τ = 1.05: σ(.525) = .6283162, .5, .3716838; L = 4/1.05 σ.
        Row(
            [log(1.5), 0.0, log(0.5)],
            -1.0,
            [2.3935855, 1.9047619, 1.4159383],
            [1.4012097, 1.0, 0.4670699],
        ),
    ],
    "topr": [
        # log ρ_H = .3 and -.3; log π = -.9 and -1.1. e^-.3 = .7408182, times 1.1 = .8149000.
        Row([0.1, 0.1, 0.1], 1.0, [0.9] * 3, [-1.0] * 3, old=-1.0),
        Row([0.1, 0.1, 0.1], -1.0, [-0.9] * 3, [1.0] * 3, old=-1.0),
        Row([-0.1, -0.1, -0.1], 1.0, [1.1] * 3, [-1.0] * 3, old=-1.0),
        Row([-0.1, -0.1, -0.1], -1.0, [-0.8149000] * 3, [0.7408182] * 3, old=-1.0),
    ],
    "vespo": [
        # ρ_H = e^.3 = 1.3498588: .6 - 3·.3498588 = -.4495764 and .9 - 2·.3498588 = .2002824.
        Row([0.1, 0.1, 0.1], 1.0, [0.5741084] * 3, [-0.6378982] * 3, old=-1.0),
        Row([0.1, 0.1, 0.1], -1.0, [-1.0995730] * 3, [1.2217478] * 3, old=-1.0),
    ],
    "minpro": [
        # log w = .5, -.2 + .5, .3 - .2; log π = -.5, -1.2, -.7.
        Row(
            [0.5, -0.2, 0.3],
            1.0,
            [0.8243606, 1.6198306, 0.7736196],
            [-1.6487213, -1.3498588, -1.1051709],
            old=-1.0,
        ),
        # log w = 1, 1 + 1 = 2 (above log 5 = 1.609), .5 + 1; log π = -2, -2, -2.5.
        Row(
            [1.0, 1.0, 0.5],
            -1.0,
            [-5.4365637, -10.0, -11.2042227],
            [2.7182818, 5.0, 4.4816891],
            old=-3.0,
        ),
    ],
    "cppo": [
        # π: .5 → .9, .6, .4, v = 1, 2/3, 1/3. v D = .4 > .15; .0667 > .15 + .02 - .4; the third
        # goes back towards r = 1.
        Row([log(1.8), log(1.2), log(0.8)], 1.0, [0, 0, -0.8], [0, 0, -0.8], old=log(0.5)),
        # π: .5 → .45, .4, .2: v D = .05, .0667 ≤ .15 + .02 - .05, .1 > .15 + .0333 - .1167.
        Row([log(0.9), log(0.8), log(0.4)], -1.0, [0.9, 0.8, 0], [0.9, 0.8, 0], old=log(0.5)),
        # π: .5 → .5, .74, .5: v D = .16 > .15, though the budget saved up would be .15 + .02.
        Row([0.0, log(1.48), 0.0], 1.0, [-1, 0, -1], [-1, 0, -1], old=log(0.5)),
    ],
}


@pytest.mark.parametrize("name", PRESETS)
def test_loss_and_gradient_by_hand(name):
    for row in BY_HAND[name]:
        old_logprobs = torch.full((1, 3), row.old, dtype=torch.float64)
        logprobs = torch.tensor([row.log_ratios], dtype=torch.float64) + row.old
        logprobs.requires_grad_()
        out = preset(name)(logprobs, old_logprobs, torch.tensor([row.advantage]), torch.ones(1, 3))
        out.per_token.sum().backward()
        for actual, expected in ((out.per_token.detach(), row.loss), (logprobs.grad, row.slope)):
            torch.testing.assert_close(
                actual, torch.tensor([expected], dtype=torch.float64), rtol=0, atol=1e-7
            )


def test_ctpo_is_the_sum_of_its_parts():
    assert preset("ctpo") == Objective(
        ratio=CumulativeRatio(),
        window=LogWindow(eps_low=0.025, eps_high=0.05, power=0.5, dual_clip=0.05),
    )


def test_overrides_change_that_parameter_only():
    window = preset("ctpo", eps_high=0.07).window
    assert window == LogWindow(eps_low=0.025, eps_high=0.07, power=0.5, dual_clip=0.05)
    assert preset("ctpo") == PRESETS["ctpo"]


def test_overrides_reach_surrogate_gradient_and_mismatch():
    mismatch = Mismatch(level="prefix")
    changed = preset("sapo", tau_pos=2.0, mismatch=mismatch)
    assert changed == Objective(
        ratio="token", surrogate=room.SAPOSurrogate(tau_pos=2.0), mismatch=mismatch
    )
    assert preset("ctpo", gradient="literal").gradient == "literal"
    assert preset("gspo", gradient="token-local") == preset("gspo-token")


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_what_preset_takes(name):
    """Each listed name can be set to what it is, which changes nothing."""
    base = PRESETS[name]
    for parameter in parameters(name):
        owners = [base, base.ratio, base.window, base.surrogate, base.mismatch]
        (value,) = [getattr(x, parameter) for x in owners if hasattr(x, parameter)]
        assert preset(name, **{parameter: value}) == base
    with pytest.raises(ValueError, match="unknown preset 'ctp'; did you mean 'ctpo'"):
        parameters("ctp")


def test_ctpo_without_dual_clip_is_the_printed_one():
    assert preset("ctpo", dual_clip=None) == preset("ctpo-printed")
    assert preset("ctpo-printed") != preset("ctpo")


def test_grpo_takes_a_dual_clip_as_a_ratio():
    log_ratios = torch.tensor([[1.0, 1.2]], requires_grad=True)  # ratios 2.718 and 3.320
    out = preset("grpo", dual_clip=3.0)(
        log_ratios, torch.zeros(1, 2), torch.tensor([-1.0]), torch.ones(1, 2)
    )
    out.per_token.sum().backward()
    torch.testing.assert_close(out.per_token.detach(), torch.tensor([[2.7182817, 3.0]]))
    torch.testing.assert_close(log_ratios.grad, torch.tensor([[2.7182817, 0.0]]))


@pytest.mark.parametrize(
    ("wrong", "right"), [("ctpo-print", "ctpo-printed"), ("GRPO", "grpo"), ("gpso", "gspo")]
)
def test_unknown_preset_names_the_nearest(wrong, right):
    with pytest.raises(ValueError, match=f"preset '{wrong}'; did you mean '{right}'"):
        preset(wrong)


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("ctpo", "eps_hi", "eps_high"),
        ("ctpo", "clip_low", "eps_low"),
        ("grpo", "eps_low", "clip_low"),
        ("grpo", "power", "clip_low"),
        ("sapo", "tau", "tau_pos"),
        ("topr", "gradeint", "gradient"),
    ],
)
def test_unknown_override_names_the_nearest(name, wrong, right):
    with pytest.raises(ValueError, match=f"'{wrong}'; did you mean '{right}'"):
        preset(name, **{wrong: 0.1})


def test_presets_cannot_be_changed_in_place():
    with pytest.raises(TypeError):
        PRESETS["mine"] = PRESETS["ctpo"]  # type: ignore[index]


def test_every_preset_is_documented():
    assert set(METHODS) == set(PRESETS) == set(BY_HAND)
    for name, method in METHODS.items():
        assert method.objective is PRESETS[name]
        assert method.formula.strip() and method.source.strip(), name
        assert "A" in method.formula or "as ctpo" in method.formula or "as gspo" in method.formula
        assert "arXiv" in method.source or method.source == "ours", name
        assert method.reduction in REDUCTIONS, name
        assert method.advantages in room.__all__, name
        advantages = getattr(room, method.advantages)(torch.tensor([0.0, 1.0]), group_size=2)
        assert advantages[0] < 0 < advantages[1]


def test_type_checkers_know_the_names_and_parameters():
    # mypy reports an ignored mistake that it no longer finds.
    with pytest.raises(ValueError, match="did you mean 'eps_low'"):
        preset("ctpo", eps_lo=0.03)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="did you mean"):
        preset("gsp")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="did you mean 'cumulative'"):
        Objective(ratio="cumulativ")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="did you mean 'cispo'"):
        Objective(ratio="token", surrogate="cisp")  # type: ignore[arg-type]
    preset("ctpo", eps_low=0.03, dual_clip=None)
    for names, known in (
        (PresetName, PUBLISHED),
        (RatioName, RATIOS),
        (SurrogateName, SURROGATES),
        (ReductionName, REDUCTIONS),
    ):
        assert set(get_args(names)) == set(known)
    changeable = {name for method in PUBLISHED for name in room.parameters(method)}
    assert set(Changes.__annotations__) == changeable
