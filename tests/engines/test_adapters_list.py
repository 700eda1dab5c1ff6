"""What `ctpo doctor` says of the engines that take the loss."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest

from ctpo.doctor import _adapter
from ctpo.engines.adapters import ADAPTERS, Adapter

DOCS = Path(__file__).parents[2] / "docs"
HERE = Adapter("numpy", "numpy", "1.0", "numpy:array", "ctpo.engines")


@pytest.mark.parametrize(
    ("changes", "verdict", "words"),
    [
        ({}, "good", r"^\d+\.\d+.*; the loss was tested on 1.0; it loads$"),
        ({"engine": "no-such-engine"}, "good", "^of unknown version"),
        ({"package": "no_such_engine"}, "limited", "^not installed; the loss was tested on 1.0$"),
        ({"hook": "numpy:no_such_hook"}, "limited", "does not load: ImportError.*no_such_hook"),
    ],
)
def test_an_engine_is_there_or_not_and_its_hook_is_or_not(changes, verdict, words):
    found = _adapter(dataclasses.replace(HERE, **changes))
    assert found.verdict == verdict
    assert re.search(words, found.words), found.words


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.engine)
def test_an_adapter_is_imported_without_its_engine_and_has_a_page(adapter):
    importlib.import_module(adapter.module)
    page = adapter.module.rsplit(".", 1)[1].replace("_", "-")
    assert adapter.tested.split()[0] in (DOCS / f"{page}.md").read_text()
