"""Parts and presets of one's own: by name, in every layout, with the gradient and the statistics of
what they say."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from ctpo.objective import (
    METHODS,
    PRESETS,
    RATIOS,
    SURROGATES,
    WINDOWS,
    Bounds,
    ClippedSurrogate,
    CumulativeRatio,
    LogWindow,
    Mismatch,
    Objective,
    Preset,
    Ratio,
    Surrogate,
    TokenRatio,
    TokenTerms,
    Window,
    fixed,
    parameters,
    preset,
    register_preset,
    register_ratio,
    register_surrogate,
    register_window,
    sqrt,
)
from ctpo.objective.fused import dispatch
from ctpo.objective.inputs import prepare

pytestmark = pytest.mark.usefixtures("registering")


@dataclass(frozen=True)
class Tempered(Ratio):
    strength: float = 0.5

    def log_weight(self, log_ratio, layout):
        return self.strength * log_ratio


@dataclass(frozen=True)
class Halved(CumulativeRatio):
    """Of our class, with another weight."""

    def log_weight(self, log_ratio, layout):
        return 0.5 * layout.prefix_sums(log_ratio)

    def adjoint(self, gradient, layout):
        return 0.5 * layout.suffix_sums(gradient)


@dataclass(frozen=True, kw_only=True)
class Levelling(Window):
    eps: float = 0.1
    until: int = 4
    follows_position: ClassVar[bool] = True

    def bounds(self, factors):
        width = self.eps * factors.clamp(min=1, max=self.until).sqrt()
        return Bounds(-width, width, math.inf * width)


@dataclass(frozen=True)
class Borrowing(Surrogate):
    """Returns what it was given, as it is."""

    takes_window: ClassVar[bool] = False

    def terms(self, tokens, window):
        return TokenTerms(tokens.logprobs, tokens.advantages, None, None)


@pytest.mark.parametrize(
    ("register", "known", "kind"),
    [
        (register_ratio, RATIOS, Tempered),
        (register_window, WINDOWS, Levelling),
        (register_surrogate, SURROGATES, Borrowing),
    ],
)
def test_a_part_is_registered_once_under_its_name(register, known, kind):
    assert register("mine", kind) is kind and known["mine"] is kind
    assert register("also-mine")(kind) is kind and known["also-mine"] is kind
    with pytest.raises(ValueError, match=rf"'mine' is already registered: .*{kind.__qualname__}"):
        register("mine", kind)
    for name in ("", " ", 3, None):
        with pytest.raises(ValueError, match=f"name is {name!r}; it must be a text"):
            register(name, kind)
    for wrong in (kind(), Mismatch, Ratio if kind is not Tempered else Window, "x"):
        with pytest.raises(
            TypeError, match=f"'other' must be a subclass of {kind.__base__.__name__}"
        ):
            register("other", wrong)
    with pytest.raises(TypeError):
        known["other"] = kind
    assert "other" not in known


@pytest.mark.parametrize(
    ("register", "base", "needs"),
    [
        (register_ratio, Ratio, "log_weight"),
        (register_window, Window, "bounds, follows_position"),
        (register_surrogate, Surrogate, "terms"),
    ],
)
def test_a_part_that_lacks_something_is_refused(register, base, needs):
    with pytest.raises(TypeError, match=f"Lacking lacks {needs}, which a {base.__name__} needs"):
        register("lacking", type("Lacking", (base,), {}))


def test_our_names_are_taken():
    for register, name in ((register_ratio, "token"), (register_surrogate, "clip")):
        with pytest.raises(ValueError, match=f"'{name}' is already registered: ctpo.objective"):
            register(name, Tempered if name == "token" else Borrowing)
    with pytest.raises(ValueError, match="the preset 'ctpo' is already registered: Objective"):
        register_preset("ctpo", preset("grpo"))


def test_a_registered_part_is_chosen_by_its_name():
    register_ratio("halved", Halved)
    register_window("levelling", Levelling)
    objective = Objective(ratio="halved", window="levelling")  # type: ignore[arg-type]
    assert objective == Objective(ratio=Halved(), window=Levelling())
    with pytest.raises(ValueError, match="unknown window 'leveling'; did you mean 'levelling'"):
        Objective(ratio="halved", window="leveling")  # type: ignore[arg-type]
    register_window("log", LogWindow)
    with pytest.raises(TypeError, match="window 'log' cannot be had by its name alone.*eps_low"):
        Objective(ratio="halved", window="log")  # type: ignore[arg-type]


def test_a_registered_preset_is_one_like_the_published():
    mine = Objective(ratio=Tempered(), window=fixed(0.2, 0.3))
    register_preset("mine", Preset(mine, reduction="token-mean", advantages="group_centered"))
    assert preset("mine") is not None and PRESETS["mine"] == preset("mine") == mine  # type: ignore[call-overload]
    assert METHODS["mine"].reduction == "token-mean"
    assert parameters("mine")[:3] == ["strength", "clip_low", "clip_high"]
    assert preset("mine", strength=0.25, clip_low=0.1) == Objective(  # type: ignore[call-overload]
        ratio=Tempered(0.25), window=fixed(0.1, 0.3)
    )


def test_a_preset_that_could_not_be_used_by_name_is_refused():
    mine = Objective(ratio=Tempered(), window=fixed(0.2, 0.3))
    for wrong in (Tempered(), "ctpo", None):
        with pytest.raises(TypeError, match="preset 'mine' must be an Objective or a Preset"):
            register_preset("mine", wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown reduction 'mean'"):
        register_preset("mine", Preset(mine, reduction="mean"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown advantages 'leave_one_out'"):
        register_preset("mine", Preset(mine, advantages="leave_one_out"))

    @dataclass(frozen=True)
    class Sided(Tempered):
        clip_low: float = 0.1

    with pytest.raises(ValueError, match="two of its parts have a parameter 'clip_low'"):
        register_preset("mine", Objective(ratio=Sided(), window=fixed(0.2, 0.3)))
    assert "mine" not in PRESETS and "mine" not in METHODS


@pytest.mark.parametrize("part", ["ratio", "window", "surrogate"])
def test_every_part_can_refuse_the_others(part):
    def refuses(self, objective):
        return f"never with {objective.gradient}" if objective.gradient == "literal" else None

    base = {"ratio": Halved, "window": Levelling, "surrogate": ClippedSurrogate}[part]
    choosy = type("Choosy", (base,), {"refuses": refuses})
    choices: dict[str, Any] = {"ratio": Halved(), "window": Levelling(), part: choosy()}
    Objective(**choices)
    with pytest.raises(ValueError, match="never with literal"):
        Objective(**choices, gradient="literal")


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"ratio": Tempered(), "window": Levelling()}, "follows the number of factors"),
        ({"ratio": Tempered(), "surrogate": "gmpo", "window": fixed(0.2, 0.2)}, "geometric mean"),
        ({"ratio": Tempered(), "surrogate": "cppo"}, "weighs tokens by their own ratio"),
        (
            {"ratio": Tempered(), "surrogate": "plain", "gradient": "literal"},
            r"Tempered.* has no `adjoint`, which the literal gradient needs",
        ),
        ({"ratio": "token", "surrogate": Borrowing(), "window": Levelling()}, "no effect on Borr"),
        (
            {"ratio": "cumulative", "surrogate": Borrowing(), "gradient": "literal"},
            "printed with its weight under stop-gradient",
        ),
    ],
)
def test_what_parts_say_about_themselves_is_held_against_the_others(choices, message):
    with pytest.raises(ValueError, match=message):
        Objective(**choices)


def test_a_ratio_that_says_it_accumulates_must_say_how():
    @dataclass(frozen=True)
    class Vague(Tempered):
        accumulates: ClassVar[bool] = True

    with pytest.raises(ValueError, match="follows the number of factors in the weight"):
        Objective(ratio=Vague(), window=sqrt(0.1, 0.1))


def test_a_window_of_another_statistic_is_kept_from_surrogates_that_clip_to_it():
    class OfProbabilities(Levelling):
        bounds_log_weight: ClassVar[bool] = False

    class Clipping(Borrowing):
        takes_window: ClassVar[bool] = True

    Objective(ratio=Halved(), window=OfProbabilities())
    with pytest.raises(ValueError, match="has no bound of the weight for .*Clipping"):
        Objective(ratio=Halved(), window=OfProbabilities(), surrogate=Clipping())


def test_loss_and_gradient_of_own_parts_by_hand():
    logprobs = torch.tensor([[0.5, 0.4, 0.2]], dtype=torch.float64, requires_grad=True)
    objective = Objective(ratio=Halved(), window=Levelling(eps=0.3, until=2))
    out = objective(logprobs, torch.zeros(1, 3).double(), torch.ones(1), torch.ones(1, 3))
    # log w = .25, .45, .55 against .3, .3√2 = .424 and, levelled, .424.
    top = math.exp(0.3 * math.sqrt(2))
    expected = torch.tensor([[-math.exp(0.25), -top, -top]]).double()
    torch.testing.assert_close(out.per_token.detach(), expected)
    (slope,) = torch.autograd.grad(out.per_token.sum(), logprobs)
    torch.testing.assert_close(slope, torch.tensor([[-math.exp(0.25), 0.0, 0.0]]).double())
    assert out.statistics.clipped_high.sum() == 2


def test_the_literal_gradient_of_an_own_ratio_is_autograds(make_batch):
    logprobs, old, advantages, mask = make_batch(4, 9, dtype=torch.float64)
    objective = Objective(ratio=Halved(), surrogate="plain", gradient="literal")
    (found,) = torch.autograd.grad(
        objective(logprobs, old, advantages, mask).per_token.sum(), logprobs
    )
    log_r = torch.where(mask, logprobs - old, 0.0)
    loss = -torch.exp(0.5 * log_r.cumsum(1)) * advantages[:, None] * mask
    (expected,) = torch.autograd.grad(loss.sum(), logprobs)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("ratio", [Tempered(), Halved()])
def test_own_parts_are_the_same_in_every_layout(ratio, make_batch):
    logprobs, old, advantages, mask = make_batch(4, 9, dtype=torch.float64)
    window = Levelling() if ratio == Halved() else fixed(0.05, 0.05)
    objective = Objective(ratio=ratio, window=window)
    padded = objective(logprobs, old, advantages, mask)
    lists = objective(list(logprobs), list(old), advantages, list(mask))
    torch.testing.assert_close(padded.per_token, torch.stack(lists.per_token))
    for field in dataclasses.fields(padded.statistics):
        one, other = (getattr(x.statistics, field.name) for x in (padded, lists))
        torch.testing.assert_close(one.double(), other.double(), msg=field.name)


def test_log_rho_in_the_statistics_is_the_cumulative_one_whatever_the_class_is(make_batch):
    batch = make_batch(6, 12, dtype=torch.float64)
    of_own = Objective(ratio=Halved(), surrogate="plain")(*batch).statistics
    of_ours = Objective(ratio=CumulativeRatio(), surrogate="plain")(*batch).statistics
    for name in ("log_rho_sum", "log_rho_sumsq", "log_rho_min", "log_rho_max", "log_rho_sketch"):
        torch.testing.assert_close(getattr(of_own, name), getattr(of_ours, name), msg=name)
    assert not torch.equal(of_own.weight_sum, of_ours.weight_sum)


def test_the_kernel_leaves_parts_that_it_does_not_know_to_the_torch_path():
    class Renamed(TokenRatio):
        pass

    class WideLog(LogWindow):
        def bounds(self, factors):
            return super().bounds(2 * factors)

    tokens, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    batch = prepare(tokens, tokens, torch.ones(2), mask)
    ours = Objective(ratio="cumulative", window=sqrt(0.1, 0.1))
    assert dispatch.covers(ours, batch)
    for change in (
        {"ratio": Halved()},
        {"ratio": Renamed(), "window": fixed(0.1, 0.1)},
        {"window": Levelling()},
        {"window": WideLog(eps_low=0.1, eps_high=0.1, power=0.5)},
        {"window": None, "surrogate": Borrowing()},
    ):
        assert not dispatch.covers(dataclasses.replace(ours, **change), batch)


def test_a_part_that_returns_what_it_was_given_changes_nothing_of_the_callers(make_batch):
    logprobs, old, advantages, mask = make_batch(4, 9)
    per_token = advantages[:, None].expand(4, 9).contiguous()
    before = logprobs.detach().clone(), per_token.clone()
    out = Objective(ratio=TokenRatio(), surrogate=Borrowing())(logprobs, old, per_token, mask)
    assert torch.equal(logprobs.detach(), before[0]) and torch.equal(per_token, before[1])
    assert torch.equal(out.per_token, torch.where(mask, logprobs.detach(), 0.0))
    # One number for a whole row is spread over it.
    row = Objective(ratio=TokenRatio(), surrogate=Borrowing())(logprobs, old, advantages, mask)
    (slope,) = torch.autograd.grad(row.per_token.sum(), logprobs)
    assert torch.equal(slope, torch.where(mask, per_token, 0.0))


@pytest.mark.parametrize("shape", [(2, 4, 9), (9, 4), (3, 1), (8,)])
def test_a_part_that_returns_other_shapes_is_named(shape, make_batch):
    class Misshapen(TokenRatio):
        def log_weight(self, log_ratio, layout):
            return torch.zeros(shape)

    class Misshapen2(Borrowing):
        def terms(self, tokens, window):
            return TokenTerms(torch.zeros(shape), tokens.log_ratio, None, None)

    with pytest.raises(ValueError, match=r"Misshapen.log_weight returned shape \[.*\[4, 9\]"):
        Objective(ratio=Misshapen(), surrogate="plain")(*make_batch(4, 9))
    with pytest.raises(ValueError, match=r"Misshapen2.terms returned shape \[.*\[4, 9\]"):
        Objective(ratio="token", surrogate=Misshapen2())(*make_batch(4, 9))
