"""One reading of an objective for every configuration."""

import math
import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal

import pytest

from ctpo.objective import (
    PRESETS,
    Objective,
    ObjectiveSpec,
    TokenRatio,
    fixed,
    preset,
    register_preset,
)
from ctpo.objective.named.presets import imported
from ctpo.objective.named.specification import SHORTCUTS


def settings(**given):
    return SimpleNamespace(**dict.fromkeys(SHORTCUTS) | given)


def of(further=None, name="ctpo", **given):
    section = settings(**given)
    return ObjectiveSpec.of(name, section, further, section="section.", table="more")


@pytest.mark.parametrize("name", PRESETS)
def test_a_name_is_the_preset(name):
    assert ObjectiveSpec(name).build() == preset(name)
    assert ObjectiveSpec(name).changes() == {}


@pytest.mark.parametrize("value", [1e-3, "1e-3", "0.001", " 1E-3 "])
def test_numbers_may_be_text(value):
    assert ObjectiveSpec("ctpo", {"eps_low": value}).build() == preset("ctpo", eps_low=1e-3)
    assert of(eps_low=value).build() == of({"eps_low": value}).build()
    assert ObjectiveSpec("ctpo", {"eps_low": "inf"}) == ObjectiveSpec("ctpo", {"eps_low": math.inf})


@pytest.mark.parametrize("off", ["off", False, None])
@pytest.mark.parametrize(
    ("name", "parameter"), [("ctpo", "dual_clip"), ("ctpo-exact-kl", "delta_dual")]
)
def test_what_can_be_switched_off_is_by_any_of_its_words(name, parameter, off):
    expected = preset(name, **{parameter: None})
    spec = ObjectiveSpec(name, {parameter: off})
    assert spec.build() == of({parameter: off}, name).build() == expected
    assert spec == ObjectiveSpec(name, off=[parameter])
    assert spec.changes() == {parameter: "off"}


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("ctpo", {"eps_low": "abc"}, "eps_low is 'abc'; it must be a number, e.g. 0.05$"),
        ("ctpo", {"eps_low": "off"}, "eps_low is 'off'; it must be a number, e.g. 0.05$"),
        ("ctpo", {"eps_low": None}, "eps_low is None; it must be a number, e.g. 0.05$"),
        ("ctpo", {"power": True}, "power is True; it must be a number, e.g. 0.05$"),
        ("ctpo", {"eps_high": [0.1]}, r"eps_high is \[0.1\]; it must be a number, e.g. 0.05$"),
        ("ctpo", {"eps_high": ""}, "eps_high is ''; it must be a number"),
        ("ctpo", {"dual_clip": "of"}, "dual_clip is 'of'; it must be a number.*, or 'off'$"),
        ("ctpo", {"dual_clip": True}, "dual_clip is True; it must be a number.*, or 'off'$"),
        ("sapo", {"tau_pos": {}}, "tau_pos is {}; it must be a number"),
        ("ctpo", {"eps_low": "-1"}, "eps_low is -1.0; it must be at least 0"),
        ("ctpo", {"eps_low": "nan"}, "eps_low is nan; it must be at least 0"),
        ("ctpo", {"gradient": "local"}, "unknown gradient 'local'; did you mean 'token-local'"),
        ("ctpo", {"gradient": 1}, "unknown gradient '1'"),
        ("ctpo", {"mismatch": 5.0}, "mismatch is 5.0; a weight against the generating engine"),
        ("ctpo", {"clip_low": 0.1}, "unknown parameter of preset 'ctpo' 'clip_low'; did you mean"),
        ("cptpo", {}, "unknown preset 'cptpo'; did you mean 'ctpo'"),
        (3, {}, "unknown preset '3'"),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        ObjectiveSpec(name, parameters)


def test_messages_call_a_field_what_its_configuration_calls_it():
    with pytest.raises(ValueError, match=r"^section.eps_low is 'x'; it must be a number"):
        of(eps_low="x")
    with pytest.raises(ValueError, match=r"^section.more.eps_low is 'x'; it must be a number"):
        of({"eps_low": "x"})
    with pytest.raises(ValueError, match="section.eps_low is given twice, by itself and in more"):
        of({"eps_low": 0.1}, eps_low=0.1)


@pytest.mark.parametrize("wrong", ["tau_pos=1", "[1]", "3", 3, ["tau_pos"], "{", "'x'"])
def test_further_parameters_are_a_mapping_or_its_json(wrong):
    assert of('{"tau_pos": 0.9, "tau_neg": "1e0"}', "sapo").build() == preset(
        "sapo", tau_pos=0.9, tau_neg=1.0
    )
    assert of(None) == of({}) == of("{}") == ObjectiveSpec()
    with pytest.raises(ValueError, match="section.more is .*; it must map names to values, e.g. {"):
        of(wrong)


def test_parameters_of_own_parts_are_read_as_they_are_annotated(registering):
    @dataclass(frozen=True)
    class Varied(TokenRatio):
        steps: int = 3
        smooth: bool = False
        kind: Literal["a", "b"] = "a"
        limit: float | None = 2.0
        shape: tuple[int, ...] = (1,)

    register_preset("varied", Objective(ratio=Varied(), window=fixed(0.2, 0.2)))

    def ratio(**parameters):
        return ObjectiveSpec("varied", parameters).build().ratio

    changed = ratio(steps="8", smooth="true", kind="b", limit="off", shape=(2, 3))
    assert changed == Varied(8, True, "b", None, (2, 3)) and isinstance(changed.steps, int)
    assert ratio(smooth=False, limit=1) == Varied(limit=1.0)
    for wrong, right in (
        ({"steps": 2.5}, "steps is 2.5; it must be a whole number"),
        ({"steps": "off"}, "steps is 'off'; it must be a whole number"),
        ({"steps": "inf"}, "steps is 'inf'; it must be a whole number"),
        ({"smooth": "yes"}, "smooth is 'yes'; it must be true or false"),
        ({"kind": 3}, "kind is 3; it must be text"),
    ):
        with pytest.raises(ValueError, match=right):
            ratio(**wrong)


MODULE = """
from ctpo.objective import Objective, Preset, TokenRatio, fixed, register_preset

here = Objective(ratio="token", window=fixed(0.1, 0.2))
method = Preset(here, reduction="token-mean")
something = 3
register_preset("by-name", Objective(ratio="token", window=fixed(0.3, 0.4)))
"""


@pytest.fixture
def module(registering, tmp_path, monkeypatch):
    (tmp_path / "a_module_of_mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield "a_module_of_mine"
    sys.modules.pop("a_module_of_mine", None)


def test_an_objective_is_taken_from_a_module(module):
    for reference, window in (
        (f"{module}:here", fixed(0.1, 0.2)),
        (f"{module}:method", fixed(0.1, 0.2)),
        (f"{module}:by-name", fixed(0.3, 0.4)),
    ):
        expected = Objective(ratio="token", window=window)
        assert preset(reference) == ObjectiveSpec(reference).build() == expected  # type: ignore[call-overload]
        assert ObjectiveSpec.of("ctpo", settings(), None, reference=reference).build() == expected
        name = imported(reference)
        assert name is not None and PRESETS[name] == expected and imported(reference) == name
    assert preset(f"{module}:here", clip_low=0.5).window == fixed(0.5, 0.2)  # type: ignore[call-overload]


def test_a_module_alone_is_imported_for_what_it_registers(module):
    assert imported(module) is None
    assert preset("by-name").window == fixed(0.3, 0.4)  # type: ignore[call-overload]
    spec = ObjectiveSpec.of("by-name", settings(), {"clip_low": "0.5"}, reference=module)
    assert spec.build().window == fixed(0.5, 0.4)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("no_such_module:x", "there is no module 'no_such_module'; install it, or .* PYTHONPATH"),
        ("ctpo.no_such:x", "there is no module 'ctpo.no_such'"),
        ("{}:nothing", "has no objective 'nothing' and registers no such preset; it has here, met"),
        ("{}:something", "has no objective 'something'"),
        ("{}:", "must be of the form module or module:name"),
        (":x", "must be of the form module or module:name"),
        ("./file.py", "must be of the form"),
        ("", "must be of the form"),
        (3, "must be of the form"),
    ],
)
def test_a_reference_that_leads_nowhere_is_named(reference, message, module):
    if isinstance(reference, str):
        reference = reference.format(module)
    with pytest.raises(ValueError, match=rf"section.import is '?{reference}.*{message}"):
        ObjectiveSpec.of("ctpo", settings(), None, section="section.", reference=reference)


def test_an_error_inside_the_module_is_its_own(registering, tmp_path, monkeypatch):
    (tmp_path / "broken_of_mine.py").write_text("import no_such_library")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        imported("broken_of_mine:x")


def test_two_names_for_one_objective_are_refused(module):
    with pytest.raises(ValueError, match="import is .*names the objective, and so does 'grpo'"):
        ObjectiveSpec.of("grpo", settings(), None, reference=f"{module}:here")
