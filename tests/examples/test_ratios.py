"""The notebook says what it computes, and its outputs are those of its cells."""

import json
import re
import runpy
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_notebook_runs_and_shows_what_its_text_says():
    kept = json.loads((EXAMPLES / "ratios.ipynb").read_text("utf-8"))
    again = json.loads(json.dumps(kept))
    runpy.run_path(str(EXAMPLES / "run_notebook.py"))["run"](again)

    def printed(notebook):
        outputs = [out for cell in notebook["cells"] for out in cell.get("outputs", [])]
        assert sum("data" in out for out in outputs) == 3
        return "".join("".join(out.get("text", [])) for out in outputs)

    shown = printed(again)
    numbers = re.compile(r"\d\.\de[-+]\d+")  # rounding of the last step is the machine's
    assert numbers.sub("tiny", shown) == numbers.sub("tiny", printed(kept))
    assert re.search(r"token +is off by 0\.0[1-9]", shown)
    assert re.search(r"cumulative +is off by 0\.0000", shown)
    assert re.search(r"full sequence +is off by 0\.0000", shown)
    (difference,) = re.findall(r"greatest difference: (\S+)", shown)
    assert float(difference) < 1e-12
