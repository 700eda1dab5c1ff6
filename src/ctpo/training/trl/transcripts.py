"""A few answers of a batch with what the loss made of every token, for the run's page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ctpo.objective import Objective
from ctpo.objective.one_sequence import clipped
from ctpo.tasks import Problem
from ctpo.tir import Trajectory

Followed = tuple[Tensor, Tensor, Tensor]


def transcripts(
    followed: Sequence[Followed],
    trajectories: Sequence[Trajectory],
    problems: Mapping[str, Problem],
    objective: Objective,
    decode: Callable[[list[int]], str],
    updates: int,
) -> list[dict[str, Any]]:
    """Return up to four answers: of right and of wrong ones the farthest and the middle one.

    How far an answer went is its largest |log ρ_t|. Those without an advantage, which teach
    nothing, are taken only where there are no others.

    Args:
        followed: Row, log-probabilities and old ones of each micro-batch's first response; see
            `CTPOTrainer`. Is read back to the host.
        trajectories: The rollouts, by row.
        problems: What was asked, by name.
        objective: Says what is clipped.
        decode: From token ids to text.
        updates: Updates that the micro-batches were used for.
    """
    found = []
    for number, (row, logprobs, old) in enumerate(followed):
        answer = trajectories[int(row)]
        length = min(len(answer.response_ids), len(logprobs))
        mask = torch.tensor(answer.mask[:length])
        new, before = logprobs[:length].float().cpu(), old[:length].float().cpu()
        moved = torch.where(mask, new - before, 0.0)
        beyond = clipped(objective, new, before, answer.advantage or 0.0, mask)
        farthest = float(moved.cumsum(0).abs().amax()) if length else 0.0
        made = number * updates // len(followed)
        found.append((farthest, answer, made, moved.tolist(), beyond.tolist()))
    found.sort(key=lambda one: -one[0])
    chosen = []
    for right in (True, False):
        kind = [one for one in found if ((one[1].reward or 0.0) > 0.5) == right]
        kind = [one for one in kind if one[1].advantage] or kind
        chosen += [kind[i] for i in sorted({0, len(kind) // 2}) if kind]
    return [
        {
            "problem_id": answer.problem_id,
            "question": _question(problems.get(answer.problem_id)),
            "reward": answer.reward,
            "advantage": answer.advantage,
            "finish_reason": answer.finish_reason,
            "updates": made,
            "tokens": texts(answer.response_ids[: len(moved)], decode),
            "mask": answer.mask[: len(moved)],
            "log_ratios": moved,
            "clipped": beyond,
        }
        for _, answer, made, moved, beyond in chosen
    ]


def texts(ids: Sequence[int], decode: Callable[[list[int]], str]) -> list[str]:
    """Return the text of each token; a character of several tokens is with the last of them."""
    pieces, start, shown = [], 0, ""
    for end in range(1, len(ids) + 1):
        # From a token before: some tokenizers drop the space that a text begins with.
        text = decode(list(ids[start:end]))
        whole = not text.endswith("\N{REPLACEMENT CHARACTER}") or end == len(ids)
        pieces.append(text[len(shown) :] if whole else "")
        if whole:
            start, shown = end - 1, decode(list(ids[end - 1 : end]))
    return pieces


def _question(problem: Problem | None) -> str:
    return "" if problem is None else str(problem.messages[-1]["content"])
