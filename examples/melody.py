"""Notes instead of words: melodies of 64 notes by a recurrent network, with the ratio you name.

python examples/melody.py ctpo     # some seconds; prints the mean score of each batch's melodies

A melody is a sequence, a note of two octaves a token. What is good is known at the end: it goes by
steps and thirds, uses many notes, has one highest note behind its middle and comes home. The
network writes 48 melodies and then takes 32 steps of Adam on all of them: all but the first are
off-policy. Besides `ctpo.objective` this needs PyTorch alone. `studies/control.py` compares.
"""

import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from ctpo.objective import Objective, group_normalized, preset

NOTES, LENGTH, OCTAVE = 15, 64, 7


class Composer(nn.Module):
    """The next note's logits, [B, T, NOTES], from the notes before, [B, T]."""

    def __init__(self, width: int = 48):
        super().__init__()
        self.read = nn.Embedding(NOTES + 1, width)  # the last stands for the beginning
        self.remember = nn.GRU(width, width, batch_first=True)
        self.say = nn.Linear(width, NOTES)

    def forward(self, before: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        heard, state = self.remember(self.read(before), state)
        return self.say(heard), state

    @torch.no_grad()
    def write(self, count: int) -> Tensor:
        """Return so many melodies, [count, LENGTH]."""
        note, state, written = torch.full((count, 1), NOTES), None, []
        for _ in range(LENGTH):
            logits, state = self(note, state)
            note = Categorical(logits=logits).sample()
            written.append(note)
        return torch.cat(written, dim=1)

    def logprobs(self, melodies: Tensor) -> Tensor:
        """Return each note's log-probability, [B, T]."""
        before = nn.functional.pad(melodies[:, :-1], (1, 0), value=NOTES)
        return Categorical(logits=self(before)[0]).log_prob(melodies)


def score(melodies: Tensor) -> Tensor:
    """Return how good melodies are, [B], from 0 to 1."""
    intervals = melodies.diff(dim=1).abs()
    smooth = ((intervals > 0) & (intervals < 3)).float().mean(1)
    rich = nn.functional.one_hot(melodies, NOTES).amax(1).float().mean(1)
    highest = melodies == melodies.amax(1, keepdim=True)
    peak = (highest.sum(1) == 1) & (highest.int().argmax(1) >= LENGTH // 2)
    home = melodies[:, -1] % OCTAVE == 0
    return smooth * (rich + peak.float() + home.float()) / 3


def train(
    objective: Objective,
    *,
    seed: int = 0,
    rate: float = 3e-3,
    batches: int = 20,
    melodies: int = 48,
    updates: int = 32,
) -> Iterator[float]:
    """Yield the mean score of each batch's melodies, written before its updates."""
    torch.manual_seed(seed)
    policy = Composer()
    adam = torch.optim.Adam(policy.parameters(), lr=rate)
    mask = torch.ones(melodies, LENGTH, dtype=torch.bool)
    for _ in range(batches):
        written = policy.write(melodies)
        scores = score(written)
        yield scores.mean().item()
        advantages = group_normalized(scores, group_size=melodies)
        old = policy.logprobs(written).detach()
        for _ in range(updates):
            new = policy.logprobs(written)
            loss = objective(new, old, advantages, mask, statistics=False).mean("token-mean")
            adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            adam.step()


if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) > 1 else "ctpo"
    for number, mean in enumerate(train(preset(name))):
        print(f"batch {number:2}: {mean:.3f}")
