"""Presets: hand-computed numbers, overrides, and errors that name what would be right."""

import pytest
import torch

from ctpo.objective import PRESETS, CumulativeRatio, LogWindow, Objective, preset

Row = tuple[list[float], float, list[float], list[float]]

# log r_t, advantage, loss per token, dL/dlogp per token. Computed by hand.
BY_HAND: dict[str, list[Row]] = {
    "ctpo": [
        # log ρ = .04, .06, .09; bounds .05, .0707, .0866: the third is clipped to e^.0866.
        (
            [0.04, 0.02, 0.03],
            1.0,
            [-1.0408108, -1.0618365, -1.0904632],
            [-1.0408108, -1.0618365, 0],
        ),
        # log ρ = -.03, -.01, .19; lower bounds -.025, -.0354, -.0433; dual clip at .0866.
        ([-0.03, 0.02, 0.2], -1.0, [0.9753099, 0.9900498, 1.0904632], [0, 0.9900498, 0]),
    ],
    "ctpo-printed": [
        (
            [0.04, 0.02, 0.03],
            1.0,
            [-1.0408108, -1.0618365, -1.0904632],
            [-1.0408108, -1.0618365, 0],
        ),
        # Without the dual clip the third keeps ρ = e^.19.
        ([-0.03, 0.02, 0.2], -1.0, [0.9753099, 0.9900498, 1.2092496], [0, 0.9900498, 1.2092496]),
    ],
    "grpo": [
        # r = 1.2840, 1.2214, .7408: the first is above 1.28; A > 0 has no lower bound.
        ([0.25, 0.2, -0.3], 1.0, [-1.28, -1.2214028, -0.7408182], [0, -1.2214028, -0.7408182]),
        # r = 1.2840, .8187, .7408: the last is below .8; A < 0 has no upper bound.
        ([0.25, -0.2, -0.3], -1.0, [1.2840254, 0.8187308, 0.8], [1.2840254, 0.8187308, 0]),
    ],
    "gspo": [
        # Mean log r = .0003, .0005 (above log 1.0004) and -.0004 (below log .9997).
        ([0.0008, -0.0002, 0.0003], 1.0, [-1.0003000] * 3, [-1.0003000] * 3),
        ([0.001, 0.001, -0.0005], 2.0, [-2.0008] * 3, [0, 0, 0]),
        ([-0.0012, 0.0, 0.0], -1.0, [0.9997] * 3, [0, 0, 0]),
    ],
    "full-sequence": [
        # log ρ_H = .08, .09, .19 and -.03, in a window of .0866 above and -.0433 below.
        ([0.04, 0.02, 0.02], 1.0, [-1.0832871] * 3, [-1.0832871] * 3),
        ([0.04, 0.02, 0.03], 1.0, [-1.0904632] * 3, [0, 0, 0]),
        ([-0.03, 0.02, 0.2], -1.0, [1.0904632] * 3, [0, 0, 0]),
        ([-0.03, 0.0, 0.0], -1.0, [0.9704455] * 3, [0.9704455] * 3),
    ],
}


@pytest.mark.parametrize("name", PRESETS)
def test_loss_and_gradient_by_hand(name):
    for log_ratios, advantage, loss, slope in BY_HAND[name]:
        logprobs = torch.tensor([log_ratios], requires_grad=True)
        out = preset(name)(logprobs, torch.zeros(1, 3), torch.tensor([advantage]), torch.ones(1, 3))
        out.per_token.sum().backward()
        torch.testing.assert_close(out.per_token.detach(), torch.tensor([loss]), rtol=0, atol=3e-7)
        torch.testing.assert_close(
            logprobs.grad, torch.tensor([slope], dtype=torch.float32), rtol=0, atol=3e-7
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
    ],
)
def test_unknown_override_names_the_nearest(name, wrong, right):
    with pytest.raises(ValueError, match=f"'{wrong}'; did you mean '{right}'"):
        preset(name, **{wrong: 0.1})


def test_presets_cannot_be_changed_in_place():
    with pytest.raises(TypeError):
        PRESETS["mine"] = PRESETS["ctpo"]  # type: ignore[index]
