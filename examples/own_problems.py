"""Problems of your own: from a function, from a file, and what is said of a row that does not do.

python examples/own_problems.py     # no model; `data.train = "own_problems:problems"` takes them
"""

import json
from pathlib import Path

from ctpo.tasks import read_problems


def problems():
    """Rows as a file has them; whatever else they hold reaches the rewards as `problem.row`."""
    for whole in range(2, 6):
        yield {
            "id": f"half-{whole}",
            "question": f"What is half of {whole}?",
            "answers": [f"{whole}/2", str(whole / 2)],  # each of them is right
            "whole": whole,
        }


def main(folder="."):
    file = Path(folder) / "halves.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in problems()))
    for problem in read_problems(file, limit=2):
        print(problem.id, problem.messages[-1]["content"], "→", " or ".join(problem.golds))
    file.write_text('{"query": "What is half of 2?", "answer": "1"}\n')
    try:
        read_problems(file)
    except ValueError as error:
        print(error)


if __name__ == "__main__":
    main()
