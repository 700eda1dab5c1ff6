"""The examples of a screenful, run as their first lines say."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
# What each shows, and no other example does; those that train or load a model are long.
SCREENS = {
    "plain_loop.py": ["batch 0: reward 0.0", "batch 9: reward 0."],
    "sandbox_tool.py": ["['42']", "ZeroDivisionError", "timeout"],
    "own_tool.py": ['"name": "Shop"', "80 nuts are left", "75 nuts are left", "no such item"],
    "own_problems.py": ["2/2 or 1.0", "if 'query' is the question, rename it to 'question'"],
}


@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_shows_what_it_is_about(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    shown = capsys.readouterr().out
    for words in SCREENS[name]:
        assert words in shown
    if name == "plain_loop.py":
        rewards = [float(line.split()[3].rstrip(",")) for line in shown.splitlines()]
        assert rewards[-1] > 2 * rewards[0]


def run(*words, place):
    shown = subprocess.run(
        [sys.executable, *map(str, words)], cwd=place, capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    return shown.stdout


@pytest.mark.long
def test_a_reward_is_trained_and_a_model_is_measured(tmp_path):
    assert "rewards/__main__:short" in run(EXAMPLES / "own_reward.py", place=tmp_path)
    shown = run(EXAMPLES / "evaluate_local.py", "runs/own-reward/model", place=tmp_path)
    assert "avg@4" in shown
    summary = json.loads((tmp_path / "evals/example/summary.json").read_text())
    assert summary["benchmarks"]["problems"]["answers"] == 8


@pytest.mark.long
def test_a_trl_run_is_analysed(tmp_path):
    make = "from own_task import save_tiny_model as save; save('tiny')"
    code = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); {make}"
    run("-c", code, place=tmp_path)
    run(EXAMPLES / "analyze_trl.py", "tiny", "rollouts.parquet", place=tmp_path)
    ctpo = Path(sys.executable).parent / "ctpo"
    code = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
    assert "log ρ" in run("-c", code, ctpo, "analyze", "rollouts.parquet", place=tmp_path)


def test_each_is_a_screenful():
    for name in (*SCREENS, "own_reward.py", "evaluate_local.py", "analyze_trl.py"):
        assert len((EXAMPLES / name).read_text().splitlines()) <= 60, name
