"""A reward of your own: short answers, and right ones more. Half a minute on a processor.

python examples/own_reward.py
"""

from own_task import save_tiny_model

import ctpo
from ctpo.grading import grade


def right(trajectory, problem):
    """1, 0, or None where nobody can tell: such an answer is left out of its group."""
    return grade(trajectory.assistant_text, problem.golds).score


def short(trajectory, problem):
    """Between 0 and 1; the model of this example is never right, and learns this alone."""
    return 1 / (1 + len(trajectory.assistant_text))


def main(**options):
    save_tiny_model("runs/own-task-model")
    result = ctpo.train(
        "tiny",
        change=["warm_start=", "model.tiny=", "model.path=runs/own-task-model", *SMALL],
        rewards={right: 1.0, short: 0.5},
        **options,
    )
    for row in result.metrics:
        print({name: value for name, value in row.items() if name.startswith("rewards/")})
    return result


SMALL = [
    "data.held_out_problems=4",
    "rollout.prompts_per_batch=4",
    "rollout.responses_per_prompt=4",
    "rollout.max_response_tokens=16",
    "optimization.batches=3",
    "optimization.updates_per_batch=2",
    "evaluation.every=0",
]

if __name__ == "__main__":
    main(output="runs/own-reward")
