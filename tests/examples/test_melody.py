import runpy
from pathlib import Path

import pytest
import torch

from ctpo.objective import preset

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(ROOT / "examples" / "melody.py"))


def test_a_melody_scores_what_its_rules_say(example):
    up_and_home = [
        *range(8),
        *range(6, -1, -1),
    ]  # 15 notes; by hand: all steps, 8 of 15 notes, home
    length = example["LENGTH"]
    assert length == 64
    still = torch.zeros(1, length, dtype=torch.long)
    assert example["score"](still).item() == 0  # it does not move
    early = torch.tensor([(up_and_home + [1, 0] * 40)[:length]])
    # Its peak is before its middle and its last note, the second of a pair, is 1 or 0.
    expected = (8 / 15 + 0 + float(early[0, -1] % 7 == 0)) / 3
    assert example["score"](early).item() == pytest.approx(expected)
    late = early.clone()
    late[0, 40] = late[0, 39] + 1
    late[0, :40] = torch.tensor([1, 0] * 20)
    late[0, 39:42] = torch.tensor([1, 2, 1])
    assert example["score"](late).item() == pytest.approx(
        (3 / 15 + 1 + float(late[0, -1] % 7 == 0)) / 3, abs=0.02
    )


def test_what_was_written_has_the_log_probability_it_was_drawn_with(example):
    torch.manual_seed(0)
    policy = example["Composer"]()
    written = policy.write(5)
    by_hand = torch.zeros(5, 64)
    for row in range(5):
        state, note = None, torch.tensor([[example["NOTES"]]])
        for step in range(64):
            logits, state = policy(note, state)
            by_hand[row, step] = logits[0, 0].log_softmax(-1)[written[row, step]]
            note = written[row : row + 1, step : step + 1]
    assert torch.allclose(policy.logprobs(written), by_hand, atol=1e-5)


def test_melodies_get_better(example):
    scores = list(example["train"](preset("grpo"), batches=11, updates=4, rate=1e-2))
    assert scores[-1] > 1.4 * scores[0]
