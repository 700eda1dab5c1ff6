"""Ten optimizer steps of every method, against numbers committed in `exact_losses.json`.

So that a change of any number is seen and meant. After a change that is meant, write them anew and
look at the difference:

    python tests/objective/test_exact_losses.py
"""

import json
import math
import random
from pathlib import Path

import pytest
import torch

from ctpo.objective import METHODS, PRESETS, preset

FILE = Path(__file__).with_name("exact_losses.json")
SEQUENCES, LENGTH, TOKENS, STEPS = 8, 12, 5, 10

# How far the old policy's weights are from the first ones, and the length of a step: enough for
# tokens to be on both sides of the method's window.
SCALES = {
    "ctpo-fixed": (0.3, 4.0),
    "pnpo": (0.05, 0.5),
    "grpo": (0.2, 2.0),
    "dapo": (0.2, 4.0),
    "dr-grpo": (0.2, 0.2),
    "gspo": (0.005, 0.02),
    "gspo-token": (0.005, 0.02),
    "gmpo": (0.5, 4.0),
    "cispo": (1.0, 10.0),
    "sapo": (0.3, 2.0),
    "topr": (0.1, 0.1),
    "vespo": (0.1, 2.0),
    "minpro": (1.0, 10.0),
    "cppo": (0.5, 4.0),
}


def data():
    """Features, tokens, mask, advantages and weights of a linear-softmax policy.

    From Python's generator, which gives the same numbers on every machine and in every version.
    """
    source = random.Random(2605)
    features = [
        [[source.uniform(-1, 1) for _ in range(3)] for _ in range(LENGTH)] for _ in range(SEQUENCES)
    ]
    tokens = [[source.randrange(TOKENS) for _ in range(LENGTH)] for _ in range(SEQUENCES)]
    mask = [[source.random() < 0.75 for _ in range(LENGTH)] for _ in range(SEQUENCES)]
    advantages = [
        [source.uniform(0.2, 1.5) * (-1) ** i for _ in range(LENGTH)] for i in range(SEQUENCES)
    ]
    weights = [[source.uniform(-1, 1) for _ in range(TOKENS)] for _ in range(3)]
    apart = [[source.uniform(-1, 1) for _ in range(TOKENS)] for _ in range(3)]
    return (
        torch.tensor(features, dtype=torch.float64),
        torch.tensor(tokens),
        torch.tensor(mask),
        torch.tensor(advantages, dtype=torch.float64),
        torch.tensor(weights, dtype=torch.float64),
        torch.tensor(apart, dtype=torch.float64),
    )


def steps(name):
    """Losses before each step, clipped tokens over all steps and the norm of what was learned."""
    features, tokens, mask, advantages, start, apart = data()
    distance, rate = SCALES.get(name, (0.05, 1.0))
    weights = start.clone().requires_grad_()

    def logprobs(weights):
        return (features @ weights).log_softmax(dim=-1).gather(2, tokens[:, :, None])[:, :, 0]

    old = logprobs(start + distance * apart)
    losses: list[float] = []
    clipped: float = 0
    for _ in range(STEPS):
        out = preset(name)(logprobs(weights), old, advantages, mask)
        loss = out.mean(METHODS[name].reduction)
        (gradient,) = torch.autograd.grad(loss, weights)
        with torch.no_grad():
            weights -= rate * gradient
        losses.append(loss.item())
        columns = out.statistics.to_columns()
        clipped += sum(sum(columns[f"clipped_{side}"]) for side in ("high", "low", "dual"))
        clipped += sum(columns["clipped_high_negative"])
    moved = (weights.detach() - start).square().sum().sqrt().item()
    return {"losses": losses, "clipped": clipped, "moved": moved}


@pytest.fixture(scope="module")
def committed():
    return json.loads(FILE.read_text())


@pytest.mark.parametrize("name", PRESETS)
def test_ten_steps_give_the_committed_numbers(name, committed):
    actual, expected = steps(name), committed[name]
    # A loss can pass through 0, so that there is a floor to what is compared.
    assert actual["losses"] == pytest.approx(expected["losses"], rel=1e-9, abs=1e-12)
    assert actual["moved"] == pytest.approx(expected["moved"], rel=1e-9)
    assert actual["clipped"] == expected["clipped"]


def test_the_numbers_are_of_all_methods_and_tell_them_apart(committed):
    assert set(committed) == set(PRESETS)
    learned = {name: tuple(entry["losses"][1:]) for name, entry in committed.items()}
    assert len(set(learned.values())) == len(learned)
    for name, entry in committed.items():
        assert len(entry["losses"]) == STEPS
        assert all(map(math.isfinite, entry["losses"]))
        some = int(data()[2].sum()) * STEPS
        if name not in ("sapo", "vespo"):
            assert 0 < entry["clipped"] < some, name


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: steps(name) for name in PRESETS}, indent=1) + "\n")
