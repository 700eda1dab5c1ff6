"""docs/gpu.md from what `make gpu` left in docs/data/gpu.

python benchmarks/gpu_page.py
"""

from __future__ import annotations

import json
from pathlib import Path

from gpu_steps import STEPS

DOCS = Path(__file__).parents[1] / "docs"

BEGINNING = """# On a GPU

`make gpu` finds out what can be found out on a machine with one GPU in nine minutes; before, where
there is a network, `make gpu-wheels` packs what such a machine may lack. Each step has a limit
of time and leaves a file in `docs/data/gpu`, from which `python benchmarks/gpu_page.py` writes this
page. `benchmarks/gpu.sh --device cpu` rehearses it on tiny shapes, the kernel in an interpreter.

The Triton kernel (`fused=True`) is opt-in until the step `speed` shows that forward and backward at
[64, 8192] take at most two thirds of what `torch.compile` of the torch path takes; else it goes.
"""


def page(place: Path) -> str:
    """Return the page for the results in a directory."""
    found = {
        name: json.loads((place / f"{name}.json").read_text(encoding="utf-8"))
        for name in STEPS
        if (place / f"{name}.json").exists()
    }
    parts = [BEGINNING]
    if not any(result["results"] for result in found.values()):
        parts.append("**Nothing of this has been run on any card yet.**\n")
    rows = [
        "| step | at most | what it finds out | on which card | outcome |",
        "|---|---|---|---|---|",
    ]
    for name, (limit, words, _) in STEPS.items():
        result = found.get(name)
        card = result["card"] if result else "–"
        outcome = f"{result['status']}, {result['seconds']} s" if result else "not run"
        if result and result.get("words"):
            outcome += f": {result['words']}"
        rows.append(f"| `{name}` | {limit} s | {words} | {card} | {outcome} |")
    parts.append("\n".join(rows) + "\n")
    for name, result in found.items():
        lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in result["results"])
        parts.append(f"## {name}\n\ntorch {result['torch']}\n\n```json\n{lines}\n```\n")
    return "\n".join(parts)


def main() -> None:
    (DOCS / "gpu.md").write_text(page(DOCS / "data/gpu"), encoding="utf-8")


if __name__ == "__main__":
    main()
