"""The page on GPUs is what its command makes of the results, and says where there are none."""

import importlib
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def gpu_page(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    yield importlib.import_module("gpu_page")
    for name in ("gpu_page", "gpu_steps"):
        sys.modules.pop(name, None)


def test_the_page_is_what_its_command_writes(gpu_page):
    assert (ROOT / "docs/gpu.md").read_text(encoding="utf-8") == gpu_page.page(
        ROOT / "docs/data/gpu"
    )


def test_it_says_on_which_card_a_step_was_run_and_which_were_not(gpu_page, tmp_path):
    never = "**Nothing of this has been run on any card yet.**"
    assert never in gpu_page.page(tmp_path)
    found = {"card": "A card", "torch": "2", "status": "failed", "words": "why", "seconds": 3}
    (tmp_path / "speed.json").write_text(json.dumps(found | {"results": [{"us": 1}]}))
    text = gpu_page.page(tmp_path)
    assert never not in text and '{"us": 1}' in text
    assert "| A card | failed, 3 s: why |" in text and "| – | not run |" in text
