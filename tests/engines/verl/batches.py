"""Batches as verl's trainer hands them to its worker, and what plain autograd says about them."""

from functools import partial

import torch
from tensordict import TensorDict

PROMPTS, RESPONSES = (3, 2, 5, 4, 2, 3), (9, 4, 12, 1, 7, 6)


def random_rows(model, seed=0, spread=0.05):
    """Return six episodes: ids, length of the prompt, mask, old log-probs and advantage.

    Masks have holes, and old log-probs lie near the model's own.
    """
    generator = torch.Generator().manual_seed(seed)
    rows, vocabulary = [], model.config.vocab_size
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        ids = torch.randint(3, vocabulary, (prompt + response,), generator=generator)
        mask = torch.rand(response, generator=generator) > 0.3
        mask[0] = True
        with torch.no_grad():
            old = logprobs_of(model, ids, prompt)
        old = old + spread * torch.randn(response, generator=generator)
        old[~mask] = -40.0  # changes nothing
        rows.append((ids, prompt, mask, old, torch.randn((), generator=generator)))
    assert not all(row[2].all() for row in rows)
    return rows


def logprobs_of(model, ids, prompt):
    logits = model(ids[None]).logits[0, prompt - 1 : -1]
    return torch.log_softmax(logits, dim=-1).gather(1, ids[prompt:, None])[:, 0]


def batch(rows, *, mini_batch_size, micro_batch_size=None, micro_batch_tokens=None):
    """Return the rows as verl's trainer sends them.

    Args:
        rows: Of `random_rows`; those of this rank.
        mini_batch_size: Rows per optimizer step, over all ranks.
        micro_batch_size: Rows that go through the model together,
        micro_batch_tokens: or their tokens, padding not counted.
    """
    from verl.utils import tensordict_utils as tu

    masks = _nested([mask.long() for _, _, mask, _, _ in rows])
    data = TensorDict(
        {
            "input_ids": _nested([ids for ids, *_ in rows]),
            "position_ids": _nested([torch.arange(len(ids)) for ids, *_ in rows]),
            "prompts": _nested([ids[:prompt] for ids, prompt, *_ in rows]),
            "responses": _nested([ids[prompt:] for ids, prompt, *_ in rows]),
            "response_mask": masks,
            "loss_mask": masks,
            "old_log_probs": _nested([old for *_, old, _ in rows]),
            "advantages": _nested([a.expand(len(old)).clone() for *_, old, a in rows]),
        },
        batch_size=len(rows),
    )
    tu.assign_non_tensor(
        data,
        mini_batch_size=mini_batch_size,
        global_batch_size=mini_batch_size,
        micro_batch_size_per_gpu=micro_batch_size,
        use_dynamic_bsz=micro_batch_tokens is not None,
        max_token_len_per_gpu=micro_batch_tokens,
        temperature=1.0,
        calculate_entropy=False,
        dataloader_kwargs={"shuffle": False},
    )
    return data


def train(worker, rows, policy_loss, reduction="seq-mean-token-mean", **settings):
    """Let verl's worker train on the rows and return its metrics, as verl's trainer logs them.

    Args:
        worker: The worker.
        rows: Of `random_rows`; those of this rank.
        policy_loss: verl's section of that name, and further settings of the actor as a dict.
        reduction: verl's `loss_agg_mode`.
        **settings: Of `batch`.
    """
    from verl.utils import tensordict_utils as tu
    from verl.utils.metric import reduce_metrics
    from verl.workers.config import FSDPActorConfig
    from verl.workers.utils.losses import ppo_loss

    policy_loss, actor = policy_loss if isinstance(policy_loss, tuple) else (policy_loss, {})
    config = FSDPActorConfig(
        strategy="fsdp2",
        rollout_n=1,
        ppo_micro_batch_size_per_gpu=1,
        loss_agg_mode=reduction,
        policy_loss=policy_loss,
        **actor,
    )
    worker.set_loss_fn(partial(ppo_loss, config=config))
    output = worker.train_mini_batch(batch(rows, **settings))
    return None if output is None else reduce_metrics(tu.get(output, "metrics"))


def by_autograd(model, rows, objective, reduction="seq-mean-token-mean"):
    """Return loss, norm of the gradient and statistics of the rows as one batch."""
    model.zero_grad()
    out = objective(
        [logprobs_of(model, ids, prompt) for ids, prompt, *_ in rows],
        [old for *_, old, _ in rows],
        torch.stack([a for *_, a in rows]),
        [mask for _, _, mask, _, _ in rows],
    )
    loss = out.mean(reduction)
    loss.backward()
    norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
    return loss.item(), norm.item(), out.statistics


def _nested(tensors):
    return torch.nested.as_nested_tensor(tensors, layout=torch.jagged)
