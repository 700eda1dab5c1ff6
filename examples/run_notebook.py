"""Run a notebook's cells in order and keep what they print and draw in the file.

python examples/run_notebook.py examples/ratios.ipynb --figures docs/images
"""

import argparse
import base64
import contextlib
import io
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def run(notebook, figures=None):
    """Fills in the outputs of a notebook's code cells; raises what a cell raises."""
    names, drawn = {}, 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
        cell["outputs"] = []
        if text := printed.getvalue().splitlines(keepends=True):
            cell["outputs"].append({"output_type": "stream", "name": "stdout", "text": text})
        for number in plt.get_fignums():
            picture = io.BytesIO()
            plt.figure(number).savefig(picture, format="png", dpi=110, metadata={"Software": None})
            drawn += 1
            if figures is not None:
                (figures / f"method-{drawn}.png").write_bytes(picture.getvalue())
            data = {"image/png": base64.b64encode(picture.getvalue()).decode()}
            cell["outputs"].append({"output_type": "display_data", "data": data, "metadata": {}})
        plt.close("all")
    return names


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--figures", type=Path)
    options = parser.parse_args()
    content = json.loads(options.file.read_text(encoding="utf-8"))
    run(content, options.figures)
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    options.file.write_text(text, encoding="utf-8")
