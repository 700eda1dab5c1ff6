"""Which choices go together: those that make sense do, in one line; the others raise."""

import math

import pytest
import torch

from ctpo.objective import (
    RATIOS,
    SURROGATES,
    CISPOSurrogate,
    ClippedSurrogate,
    CPPOSurrogate,
    CumulativeRatio,
    DriftFreeWindow,
    FullSequenceRatio,
    KLWindow,
    LogWindow,
    Mismatch,
    Objective,
    RatioWindow,
    SAPOSurrogate,
    SequenceGeometricMeanRatio,
    TokenRatio,
    VESPOSurrogate,
    fixed,
    icepop,
    sqrt,
)

POWER_0 = LogWindow(eps_low=0.4, eps_high=0.4, power=0)
DRIFT_FREE = DriftFreeWindow(eps_low=0.025, eps_high=0.05)
KL = KLWindow(delta_low=0.001, delta_high=0.001)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"ratio": "token"}, r"ClippedSurrogate\(\) needs a window, e.g. sqrt\(0.025, 0.05\)"),
        ({"ratio": "token", "surrogate": "cispo"}, r"CISPOSurrogate\(\) needs a window"),
        *(
            (
                {"ratio": "full-sequence", "surrogate": name, "window": sqrt(0.1, 0.1)},
                "LogWindow.* would have no effect on .*Surrogate.*; leave it out",
            )
            for name in ("plain", "sapo", "topr", "vespo")
        ),
        (
            {"ratio": "token", "surrogate": "cppo", "window": fixed(0.2, 0.2)},
            r"RatioWindow.* would have no effect on CPPOSurrogate",
        ),
        *(
            (
                {"ratio": name, "window": sqrt(0.1, 0.1)},
                "power would have no effect; set power=0",
            )
            for name in ("token", "sequence-geometric-mean", "minimum-prefix")
        ),
        (
            {"ratio": "token", "window": KL},
            r"KLWindow.* follows the number of factors in the weight, but TokenRatio\(\)",
        ),
        (
            {"ratio": "cumulative", "surrogate": "cispo", "window": DRIFT_FREE},
            "DriftFreeWindow.* has no bound of the weight for CISPOSurrogate.*surrogate='clip'",
        ),
        (
            {"ratio": "cumulative", "surrogate": "cispo", "window": KL},
            "KLWindow.* has no bound of the weight for CISPOSurrogate.*surrogate='clip'",
        ),
        (
            {"ratio": "full-sequence", "window": DRIFT_FREE},
            r"is about the cumulative ratio, not FullSequenceRatio\(\)",
        ),
        (
            {"ratio": "cumulative-geometric-mean", "window": KL},
            r"is about the cumulative ratio, not CumulativeGeometricMeanRatio\(\)",
        ),
        (
            {"ratio": "token", "surrogate": "gmpo", "window": POWER_0},
            r"geometric mean over the sequence; set ratio='sequence-geometric-mean', not Token",
        ),
        (
            {
                "ratio": "sequence-geometric-mean",
                "surrogate": "gmpo",
                "window": LogWindow(eps_low=0.4, eps_high=0.4, power=0, dual_clip=0.4),
            },
            "dual_clip would have no effect on GMPO; set dual_clip=None",
        ),
        (
            {
                "ratio": "sequence-geometric-mean",
                "surrogate": "gmpo",
                "window": fixed(0.2, 0.2, dual_clip=3.0),
            },
            "dual_clip would have no effect on GMPO; set dual_clip=None",
        ),
        (
            {"ratio": "token", "surrogate": "cispo", "window": fixed(1.0, 4.0, dual_clip=3.0)},
            "dual_clip would have no effect on CISPO.*; set dual_clip=None",
        ),
        (
            {"ratio": "cumulative", "surrogate": "cispo", "window": sqrt(0.1, 0.1, 0.2)},
            "dual_clip would have no effect on CISPO.*; set dual_clip=None",
        ),
        (
            {"ratio": "cumulative", "surrogate": "cppo"},
            "CPPOSurrogate.* weighs tokens by their own ratio; set ratio='token'",
        ),
        *(
            (
                {"ratio": "full-sequence", "surrogate": name, "gradient": "literal"},
                "printed with its weight under stop-gradient.*leave gradient out",
            )
            for name in ("topr", "vespo")
        ),
        (
            {
                "ratio": "cumulative",
                "surrogate": "cispo",
                "window": sqrt(0.1, 0.1),
                "gradient": "literal",
            },
            "printed with its weight under stop-gradient",
        ),
        (
            {"ratio": "token", "window": fixed(0.2, 0.2), "gradient": "literal"},
            "the literal gradient of a token ratio is the token-local one; leave gradient out",
        ),
        (
            {"ratio": "minimum-prefix", "surrogate": "plain", "gradient": "literal"},
            "minimum prefix ratio is used under stop-gradient and has no literal gradient",
        ),
    ],
)
def test_a_senseless_combination_raises(choices, message):
    with pytest.raises(ValueError, match=message):
        Objective(**choices)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"ratio": "cumulativ"}, "unknown ratio 'cumulativ'; did you mean 'cumulative'"),
        ({"ratio": "tokens"}, "unknown ratio 'tokens'; did you mean 'token'"),
        ({"surrogate": "CISPO"}, "unknown surrogate 'CISPO'; did you mean 'cispo'"),
        ({"surrogate": "clipped"}, "unknown surrogate 'clipped'; did you mean 'clip'"),
        ({"gradient": "local"}, "unknown gradient 'local'; did you mean 'token-local'"),
        ({"gradient": None}, "unknown gradient 'None'; did you mean"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(choices, message):
    good = {"ratio": "token", "window": fixed(0.2, 0.2)}
    with pytest.raises(ValueError, match=message):
        Objective(**{**good, **choices})


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("ratio", TokenRatio),
        ("ratio", RatioWindow(clip_low=0.2, clip_high=0.2)),
        ("window", TokenRatio()),
        ("window", "sqrt"),
        ("surrogate", TokenRatio()),
        ("surrogate", ClippedSurrogate),
        ("mismatch", "prefix"),
    ],
)
def test_a_choice_of_the_wrong_kind_raises(name, wrong):
    parts = {"ratio": TokenRatio(), "window": RatioWindow(clip_low=0.2, clip_high=0.2)}
    with pytest.raises(TypeError, match=f"{name} must be an instance of {name.capitalize()}"):
        Objective(**{**parts, name: wrong})


def test_a_name_is_the_class_with_its_defaults():
    objective = Objective(ratio="cumulative", surrogate="cispo", window=sqrt(0.025, 0.05))
    assert objective == Objective(
        ratio=CumulativeRatio(), surrogate=CISPOSurrogate(), window=sqrt(0.025, 0.05)
    )
    for name, kind in RATIOS.items():
        assert Objective(ratio=name, surrogate="plain").ratio == kind()  # type: ignore[arg-type]
    assert {kind() for kind in SURROGATES.values()} >= {SAPOSurrogate(), VESPOSurrogate()}
    assert Objective(ratio="token", window=fixed(0.2, 0.2)).surrogate == ClippedSurrogate()


def test_cumulative_cispo_in_one_line_by_hand():
    objective = Objective(ratio="cumulative", surrogate="cispo", window=sqrt(0.025, 0.05))
    logprobs = torch.tensor([[-1.0, -2.0], [-1.0, -2.0]], dtype=torch.float64, requires_grad=True)
    old = torch.tensor([[-1.04, -2.04], [-0.98, -1.98]], dtype=torch.float64)
    # log ρ = .04, .08 (cut to .0707) and -.02, -.04 (cut to -.0354).
    out = objective(logprobs, old, torch.tensor([1.0, -3.0]), torch.ones(2, 2))
    high, low = math.exp(0.05 * math.sqrt(2)), math.exp(-0.025 * math.sqrt(2))
    factors = torch.tensor([[-math.exp(0.04), -high], [3 * math.exp(-0.02), 3 * low]])
    (slope,) = torch.autograd.grad(out.per_token.sum(), logprobs)
    torch.testing.assert_close(slope, factors.double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(out.per_token.detach(), slope * logprobs.detach())


COMBINATIONS = [
    (ratio, surrogate, gradient)
    for ratio in RATIOS
    for surrogate, kind in SURROGATES.items()
    for gradient in ("token-local", "literal")
    if (surrogate != "gmpo" or ratio == "sequence-geometric-mean")
    and (surrogate != "cppo" or ratio == "token")
    and (
        gradient == "token-local"
        or (kind.has_literal_gradient and ratio not in ("token", "minimum-prefix"))
    )
]


@pytest.mark.parametrize(("ratio", "surrogate", "gradient"), COMBINATIONS)
def test_what_may_combine_does_and_computes(ratio, surrogate, gradient, make_batch):
    window = None
    if SURROGATES[surrogate].takes_window:
        window = sqrt(0.1, 0.1) if RATIOS[ratio].accumulates else POWER_0
    logprobs, old_logprobs, advantages, mask = make_batch(4, 7)
    for mismatch in (None, icepop(), Mismatch(level="prefix", edge="mask")):
        objective = Objective(
            ratio=ratio, surrogate=surrogate, window=window, gradient=gradient, mismatch=mismatch
        )
        rollout = None if mismatch is None else old_logprobs - 0.1
        out = objective(logprobs, old_logprobs, advantages, mask, rollout_logprobs=rollout)
        (slope,) = torch.autograd.grad(out.per_token.sum(), logprobs)
        assert slope.isfinite().all() and slope.any()
        assert not slope[~mask].any()


@pytest.mark.parametrize("ratio", [CumulativeRatio(), FullSequenceRatio()])
def test_a_power_with_effect_is_accepted(ratio):
    assert Objective(ratio=ratio, window=sqrt(0.2, 0.2)).surrogate == ClippedSurrogate()


@pytest.mark.parametrize("ratio", [TokenRatio(), SequenceGeometricMeanRatio()])
def test_a_fixed_log_window_goes_with_every_ratio(ratio):
    assert Objective(ratio=ratio, window=POWER_0).window == POWER_0


@pytest.mark.parametrize(
    ("surrogate", "field", "value", "right"),
    [
        (SAPOSurrogate, "tau_pos", 0.0, "finite and above 0, e.g. 1.0"),
        (SAPOSurrogate, "tau_neg", math.inf, "finite and above 0"),
        (VESPOSurrogate, "k_pos", -1.0, "finite, at least 0, e.g. 2.0"),
        (VESPOSurrogate, "k_neg", math.nan, "finite, at least 0"),
        (VESPOSurrogate, "lambda_pos", 0.0, "finite, above 0, e.g. 3.0"),
        (VESPOSurrogate, "lambda_neg", math.inf, "finite, above 0"),
        (CPPOSurrogate, "delta", -0.1, "finite, at least 0, e.g. 0.15"),
        (CPPOSurrogate, "delta_budget", math.nan, "finite, at least 0"),
    ],
)
def test_a_bad_parameter_of_a_surrogate_says_what_is_right(surrogate, field, value, right):
    with pytest.raises(ValueError) as error:
        surrogate(**{field: value})
    assert f"{surrogate.__name__}.{field} is {value!r}; it must be {right}" in str(error.value)
