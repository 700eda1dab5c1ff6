"""Actions instead of tokens: CartPole, with many updates on the same games and the ratio you name.

python examples/cartpole.py ctpo     # half a minute; prints the mean length of each batch's games

A game is a sequence, an action a token, the number of steps the reward, known at the end. The
policy plays 32 games and then takes 64 steps of Adam on all of them: all but the first are
off-policy. Besides `ctpo.objective` this needs gymnasium. `studies/control.py` compares.
"""

import sys
from collections.abc import Iterator

import gymnasium
import torch
from torch import nn
from torch.distributions import Categorical

from ctpo.objective import Objective, group_normalized, preset


def play(policy: nn.Module, games: gymnasium.vector.VectorEnv, seed: int):
    """Return what was seen, [B, T, 4], what was done, [B, T], and which steps count, [B, T]."""
    seen, _ = games.reset(seed=seed)
    steps, alive = [], torch.ones(games.num_envs, dtype=torch.bool)
    while alive.any():
        observation = torch.as_tensor(seen)
        with torch.no_grad():
            action = Categorical(logits=policy(observation)).sample()
        steps.append((observation, action, alive))
        seen, _, fallen, late, _ = games.step(action.numpy())
        alive = alive & ~torch.as_tensor(fallen | late)
    return [torch.stack(parts, dim=1) for parts in zip(*steps, strict=True)]


def train(
    objective: Objective,
    *,
    seed: int = 0,
    rate: float = 3e-3,
    batches: int = 16,
    games: int = 32,
    updates: int = 64,
) -> Iterator[float]:
    """Yield the mean number of steps of each batch's games, played before its updates."""
    torch.manual_seed(seed)
    table = gymnasium.make_vec("CartPole-v1", games, vectorization_mode="vector_entry_point")
    policy = nn.Sequential(
        nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2)
    )
    adam = torch.optim.Adam(policy.parameters(), lr=rate)
    for batch in range(batches):
        seen, done, mask = play(policy, table, seed=1000 * seed + batch)
        lengths = mask.sum(dim=1).float()
        yield lengths.mean().item()
        advantages = group_normalized(lengths, group_size=games)
        old = Categorical(logits=policy(seen)).log_prob(done).detach()
        for _ in range(updates):
            new = Categorical(logits=policy(seen)).log_prob(done)
            loss = objective(new, old, advantages, mask, statistics=False).mean("token-mean")
            adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
            adam.step()


if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) > 1 else "ctpo"
    for number, length in enumerate(train(preset(name))):
        print(f"batch {number:2}: {length:5.1f} steps a game")
