"""A task of your own: its problems, its rewards, its tools and what samples.

python examples/own_task.py      # a tiny untrained model; half a minute on a CPU

The recipe beside this file names each part as `own_task:NAME`. From the command line, once the
model is there: PYTHONPATH=examples ctpo train examples/own_task.toml
"""

from pathlib import Path

STOCK = {"bolts": 140, "nuts": 95, "screws": 310}


def problems():
    """Rows as a file would have them; whatever else they hold goes to the rewards."""
    for item, count in STOCK.items():
        for more in range(1, 9):
            question = f"We add {more} {item}. How many are there?"
            yield {"question": question, "answer": str(count + more), "item": item}


def right(trajectory, problem):
    """1 or 0, from the policy's own words; None where nobody could tell."""
    if problem.row["item"] not in STOCK:
        return None
    return float(trajectory.assistant_text.strip().endswith(problem.answer))


def digits(trajectory, problem):
    """Something to learn for a model that is never right."""
    text = trajectory.assistant_text
    return sum(c.isdigit() for c in text) / max(1, len(text))


def stock(item: str) -> int:
    """Looks up how many of an item are in stock.

    Args:
        item: The item's name.
    """
    if item not in STOCK:
        raise ValueError(f"no such item; there are {', '.join(STOCK)}")  # the policy reads this
    return STOCK[item]


class Notebook:
    """One for each episode, so what is written stays until its end."""

    def __init__(self):
        self.lines = []

    def __call__(self, line: str) -> str:
        """Writes a line down and returns all lines so far.

        Args:
            line: What to write.
        """
        self.lines.append(line)
        return "\n".join(self.lines)


def watched(trainer):
    """What samples, in place of the training model: here that model itself, with a look at it."""
    from ctpo.engines.trl.episodes import own_model

    print(f"the policy has {sum(p.numel() for p in trainer.model.parameters()):,} parameters")
    return own_model(trainer)


def save_tiny_model(place):
    from tiny_model import tiny_model

    model, tokenizer = tiny_model()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\n{% endfor %}a:"
    )
    model.save_pretrained(place)
    tokenizer.save_pretrained(place)


def main(**options):
    import ctpo

    save_tiny_model("runs/own-task-model")
    # The same could be said here: ctpo.train(..., rewards={right: 1.0}, tools=[stock, Notebook])
    recipe = Path(__file__).with_suffix(".toml")
    result = ctpo.train(recipe, output="runs/own-task", **options)
    for row in result.metrics:
        print("batch", row["batch"], "reward", row["reward/mean"])
    print("report", result.report)
    return result


if __name__ == "__main__":
    main()
