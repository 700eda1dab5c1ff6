"""The commands that docs/verl.md gives for machines with GPUs: verl's own checks must pass them."""

import re
import shlex
from pathlib import Path

import pytest

from ctpo.training.recipe.loading import load_recipe

PAGE = Path(__file__).parents[3] / "docs" / "verl.md"
COMMANDS = sorted(
    set(re.findall(r"ctpo train ((?:tiny-verl|qwen3-4b)(?: --set [^`\s]+)+)", PAGE.read_text()))
)


def test_the_page_gives_commands() -> None:
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("command", COMMANDS)
def test_verl_takes_the_configuration(command: str, tmp_path: Path) -> None:
    pytest.importorskip("verl", reason="verl has no release for this Python")
    from ctpo.training.verl.engine import VerlEngine

    name, *rest = shlex.split(command)
    changes = [word for word in rest if word != "--set"]
    assert "main_ppo" in VerlEngine(load_recipe(name, changes)).describe(tmp_path)
