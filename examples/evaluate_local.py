"""Measure a model in a directory on problems of your own.

python examples/evaluate_local.py MODEL     # without MODEL a tiny one that has learnt nothing
"""

import json
import sys
from pathlib import Path

import ctpo

PROBLEMS = [
    {"id": "half", "question": "What is half of 1?", "answers": ["1/2", "0.5"]},
    {"id": "seven", "question": "What is 3 + 4?", "answer": "7"},
]


def main(model, place="evals/example"):
    Path("problems.json").write_text(json.dumps(PROBLEMS))
    result = ctpo.evaluate(
        model, data="problems.json", samples=4, max_response_tokens=64, output=place
    )
    print(result.text)
    print("every answer:", result.page)
    return result


if __name__ == "__main__":
    if len(sys.argv) == 1:
        from own_task import save_tiny_model

        save_tiny_model("runs/own-task-model")
    main(sys.argv[1] if len(sys.argv) > 1 else "runs/own-task-model")
