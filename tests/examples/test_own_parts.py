import ast
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_parts.py"


@pytest.mark.slow
def test_the_example_trains_its_own_parts_and_finds_them_on_verl(tmp_path):
    shown = subprocess.run([sys.executable, EXAMPLE], cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    logs = [ast.literal_eval(x) for x in re.findall(r"\{'loss'.*\}", shown.stdout)]
    assert len(logs) == 4
    for log in logs:
        assert float(log["ctpo/on_policy/log_rho_max"]) == 0.0
        assert float(log["ctpo/log_rho/std"]) > 0.0
    assert any(float(log["ctpo/clip/low"]) + float(log["ctpo/clip/high"]) > 0 for log in logs)
    objective = (
        "Objective(ratio=TemperedRatio(strength=0.7), "
        "window=LevellingWindow(eps_low=0.02, eps_high=0.04, until=8)"
    )
    assert f"trained with {objective}" in shown.stdout
    if importlib.util.find_spec("verl"):
        assert f"verl takes {objective}" in shown.stdout
        assert "from ctpo.engines.verl.loss.policy_loss" in shown.stdout


def test_the_examples_parts_go_together_only_as_they_say(registering):
    own_parts = importlib.import_module("own_parts")

    from ctpo.objective import Objective, preset

    assert preset("tempered").window == own_parts.LevellingWindow()  # type: ignore[call-overload]
    assert preset("tempered", strength=0.7).ratio == own_parts.TemperedRatio(0.7)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="was made for a tempered ratio, not for Cumulative"):
        Objective(ratio="cumulative", window="levelling")
    assert len(EXAMPLE.read_text().splitlines()) <= 150
