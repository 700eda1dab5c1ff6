"""The objective in a loop of your own: torch, and nothing else of ctpo.

python examples/plain_loop.py      # two seconds; a hundred weights learn to write sevens
"""

import torch
from torch.distributions import Categorical

from ctpo.objective import group_normalized, preset

torch.manual_seed(0)
policy = torch.nn.Embedding(10, 10)  # the next token's logits, by the last token
adam = torch.optim.Adam(policy.parameters(), lr=0.03)
objective = preset("ctpo")


def write(answers, length):
    tokens = [torch.zeros(answers, dtype=torch.long)]
    for _ in range(length):
        tokens.append(Categorical(logits=policy(tokens[-1])).sample())
    return torch.stack(tokens, dim=1)


def logprobs_of(tokens):
    return Categorical(logits=policy(tokens[:, :-1])).log_prob(tokens[:, 1:])  # [B, T]


for batch in range(10):
    with torch.no_grad():
        tokens = write(answers=64, length=12)
        old_logprobs = logprobs_of(tokens)
    rewards = (tokens[:, 1:] == 7).float().mean(dim=1)
    advantages = group_normalized(rewards, group_size=64)
    mask = torch.ones_like(old_logprobs, dtype=torch.bool)  # false where a tool wrote
    for _update in range(8):  # from the second on they are off-policy
        out = objective(logprobs_of(tokens), old_logprobs, advantages, mask)
        loss = out.mean("seq-mean-token-mean")
        adam.zero_grad()
        loss.backward()
        adam.step()
    seen = out.statistics.summary()
    print(f"batch {batch}: reward {rewards.mean():.2f}, spread of log ρ {seen['log_rho/std']:.3f}")
