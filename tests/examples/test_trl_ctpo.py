import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "trl_ctpo.py"


@pytest.mark.slow
def test_the_example_trains_a_model_from_a_directory(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    shown = subprocess.run(
        [sys.executable, EXAMPLE, "policy"], cwd=tmp_path, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    logs = [ast.literal_eval(x) for x in re.findall(r"\{'loss'.*\}", shown.stdout)]
    assert len(logs) == 10
    for log in logs:
        assert float(log["ctpo/on_policy/log_rho_max"]) == 0.0
        assert float(log["ctpo/log_rho/std"]) > 0.0
        assert 0.0 <= float(log["reward"]) <= 1.0


def test_the_example_needs_the_trainer_only():
    imported = re.findall(r"from (ctpo\S*) import", EXAMPLE.read_text())
    assert imported == ["ctpo.engines.trl"]
    assert len(EXAMPLE.read_text().splitlines()) <= 40
