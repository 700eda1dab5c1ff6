"""What `ctpo init` writes: a recipe, problems and a reward to begin with."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

from ctpo.tasks import Problem, generate


def write_starter(folder: Path) -> list[Path]:
    """Write a recipe that trains as it is, its problems and its reward; returns the files.

    Raises:
        FileExistsError: One of them is there already; nothing is written then.
        OSError: They cannot be written.
    """
    ours = resources.files(__name__)
    files = {
        folder / "recipe.toml": (ours / "recipe.toml").read_text(encoding="utf-8"),
        folder / "my_reward.py": (ours / "my_reward.txt").read_text(encoding="utf-8"),
        folder / "problems.jsonl": _lines(generate(256, seed=0)),
        folder / "held_out.jsonl": _lines(generate(64, seed=0, split="held-out")),
    }
    for file in files:
        if file.exists():
            raise FileExistsError(f"{file} is there already; name another directory")
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        file.write_text(text, encoding="utf-8")
    return list(files)


def _lines(problems: list[Problem]) -> str:
    rows = [
        {"id": p.id, "question": p.messages[0]["content"], "answer": p.answer} for p in problems
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)
