"""A part of the user's is found by name, or it is said what is wrong with the name."""

import pytest

import ctpo.references as references
from ctpo.references import find, find_function, reference_to


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("no_such_module:f", "no module 'no_such_module'.*PYTHONPATH"),
        ("json:no_such_name", "json has no 'no_such_name'; it has .*dumps"),
        ("json", "must be one of grade, or module:name"),
        ("a b:c", "must be one of grade, or module:name"),
        ("string:digits", "a str; it must be a function of .trajectory, problem"),
        ("json:dumps", r"takes \(obj, \*.*too many positional arguments"),
        ("given:reward_0", "handed over in Python and cannot be imported"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_field(reference, words, monkeypatch):
    monkeypatch.setattr(references, "_given", {})  # other tests may have handed something over
    with pytest.raises(ValueError, match=f"^rewards is '{reference}'.*{words}"):
        find_function(reference, "rewards", ("trajectory", "problem"), ["grade"])


def test_a_module_that_lacks_a_module_is_not_blamed_on_the_recipe(tmp_path, monkeypatch):
    (tmp_path / "lacking.py").write_text("import what_it_needs\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="what_it_needs"):
        find("lacking:f", "rewards")


def test_what_is_handed_over_is_found_by_its_reference(monkeypatch):
    monkeypatch.setattr(references, "_given", {})
    here = test_what_cannot_be_used_is_told_with_its_field
    assert reference_to(here, "x") == f"{here.__module__}:{here.__name__}"
    for part, name in ((here, "a"), (lambda: 1, "b"), ([1], "c"), (print, "d")):
        assert find(reference_to(part, name), "field") is part
    assert reference_to([1], "c") == "given:c"
    assert reference_to("json:dumps", "x") == "json:dumps"
