"""A call's tensors: checked, and brought from the caller's layout to one that is computed on.

Always checked is what costs no host sync; values on a GPU only when asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from ctpo.objective.layout import Layout, Packed, Padded

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    # [B, T], [N] or [T_1], ..., [T_S].
    Ragged = Tensor | Sequence[Tensor]

# Rounding, or noise that somebody put on, leaves some log-probabilities a little above 0.
_ABOVE_ZERO = 0.5


@dataclass(frozen=True)
class Batch:
    """A batch as it is computed on: [B, T], or [N] with sequences one after the other.

    Attributes:
        logprobs: log π_θ in nats, with the caller's graph.
        old_logprobs: log π_old in nats.
        advantages: A_t; broadcasts to the tokens.
        rollout_logprobs: log μ in nats, or None.
        layout: Where sequences begin and end, and which tokens are the policy's.
        pieces: Lengths of the tensors that the caller handed over as a list; None otherwise.
    """

    logprobs: Float[Tensor, "*tokens"]
    old_logprobs: Float[Tensor, "*tokens"]
    advantages: Float[Tensor, "*tokens"]
    rollout_logprobs: Float[Tensor, "*tokens"] | None
    layout: Layout
    pieces: list[int] | None


def prepare(
    logprobs: Ragged,
    old_logprobs: Ragged,
    advantages: Ragged,
    mask: Ragged,
    *,
    rollout_logprobs: Ragged | None = None,
    cu_seqlens: Tensor | None = None,
    process_group: dist.ProcessGroup | None = None,
    check: bool = False,
) -> Batch:
    """Return the batch, or raise if something does not fit.

    Args:
        logprobs: Floating point: [B, T]; [N] with `cu_seqlens`; or a list of [T_i].
        old_logprobs: Floating point, shaped like `logprobs`.
        advantages: Floating point, per sequence ([B], [S]) or per token (shaped like `logprobs`).
        mask: Boolean or 0/1, shaped like `logprobs`.
        rollout_logprobs: Floating point, shaped like `logprobs`, or None.
        cu_seqlens: Integers [S+1], where packed sequences begin and the last one ends.
        process_group: Ranks over which each sequence is cut along its length.
        check: Whether to read values, too; costs host syncs.

    Raises:
        TypeError: If something is not a tensor, or not of a usable dtype.
        ValueError: If shapes, devices or values do not fit, or the batch is empty.
    """
    named: dict[str, Ragged | None] = {
        "logprobs": logprobs,
        "old_logprobs": old_logprobs,
        "advantages": advantages,
        "mask": mask,
        "rollout_logprobs": rollout_logprobs,
    }
    pieces = None
    if cu_seqlens is not None and not isinstance(cu_seqlens, torch.Tensor):
        raise TypeError(f"cu_seqlens must be a torch.Tensor, got {type(cu_seqlens).__name__}")
    if process_group is not None and not (
        dist.is_available() and isinstance(process_group, dist.ProcessGroup)
    ):
        raise TypeError(f"process_group must be a ProcessGroup, got {process_group!r:.60}")
    if isinstance(logprobs, list | tuple):
        named, cu_seqlens, pieces = _packed(named, cu_seqlens, process_group)
    tensors = {
        name: _checked(name, value)
        for name, value in named.items()
        if value is not None or name != "rollout_logprobs"
    }
    tokens = tensors["logprobs"]
    sequences = _check_shapes(tensors, cu_seqlens)

    policy = tensors["mask"]
    if policy.dtype != torch.bool:
        if check or policy.device.type == "cpu":
            _raise_at_first(
                (policy != 0) & (policy != 1),
                policy,
                "mask",
                "only 0 and 1 are allowed",
                cu_seqlens,
            )
        policy = policy != 0
    layout: Layout
    if cu_seqlens is None:
        layout = Padded(policy, process_group)
    else:
        _check_edges(cu_seqlens, len(tokens), process_group, check)
        layout = Packed(policy, cu_seqlens, process_group)

    per_token = tensors["advantages"]
    if per_token.shape != tokens.shape:
        per_token = per_token[:, None] if cu_seqlens is None else layout.spread(per_token)
    elif tokens.ndim == 1 and sequences == len(tokens):
        _check_unambiguous(cu_seqlens, check)
    if check:
        tensors["advantages"] = per_token.expand_as(tokens)
        for name, values in tensors.items():
            if name != "mask":
                wrong = policy & ~values.isfinite()
                right = "it must be finite at a policy token"
                _raise_at_first(wrong, values, name, right, cu_seqlens)
                if name != "advantages":
                    above = policy & (values > _ABOVE_ZERO)
                    right = "a log-probability is at most 0"
                    _raise_at_first(above, values, name, right, cu_seqlens)
    return Batch(
        tokens,
        tensors["old_logprobs"],
        per_token,
        tensors.get("rollout_logprobs"),
        layout,
        pieces,
    )


def check_finite(name: str, values: Float[Tensor, "*tokens"], policy_tokens: Tensor) -> None:
    """Raise if a value at a policy token is NaN or infinite. Reads back to the host.

    Args:
        name: The argument's name, for the message.
        values: The values.
        policy_tokens: True on policy tokens.

    Raises:
        ValueError: Names the first such place and its value.
    """
    wrong = policy_tokens & ~values.isfinite()
    _raise_at_first(wrong, values, name, "it must be finite at a policy token")


def _packed(
    named: dict[str, Ragged | None],
    cu_seqlens: Tensor | None,
    process_group: dist.ProcessGroup | None,
) -> tuple[dict[str, Ragged | None], Tensor, list[int]]:
    """Lay the tensors of lists one after the other."""
    if cu_seqlens is not None:
        raise ValueError("cu_seqlens has no effect on a list of tensors; leave it out")
    if process_group is not None:
        raise ValueError("a list holds whole sequences; process_group is for [B, T] and [N]")
    first = named["logprobs"]
    assert first is not None and not isinstance(first, torch.Tensor)
    if not first:
        raise ValueError("the batch is empty: logprobs is an empty list")
    lengths: list[int] = []
    for i, piece in enumerate(first):
        if not isinstance(piece, torch.Tensor) or piece.ndim != 1:
            raise TypeError(f"logprobs[{i}] must be a tensor [T_i], got {_kind(piece)}")
        lengths.append(len(piece))
    flat: dict[str, Ragged | None] = {}
    for name, value in named.items():
        if isinstance(value, torch.Tensor):
            if name != "advantages" or value.ndim != 1 or len(value) != len(lengths):
                raise ValueError(
                    f"{name} must be a list of {len(lengths)} tensors like logprobs"
                    + (f", or [{len(lengths)}]" if name == "advantages" else "")
                    + f", got {_kind(value)}"
                )
            flat[name] = value
        elif value is not None:
            for i, (piece, length) in enumerate(zip(value, lengths, strict=False)):
                if not isinstance(piece, torch.Tensor) or piece.shape != (length,):
                    raise ValueError(
                        f"{name}[{i}] must have the shape of logprobs[{i}], [{length}], got "
                        f"{_kind(piece)}"
                    )
            if len(value) != len(lengths):
                raise ValueError(f"{name} has {len(value)} tensors, logprobs has {len(lengths)}")
            flat[name] = torch.cat(list(value))
        else:
            flat[name] = None
    edges = torch.tensor([0, *lengths], device=first[0].device).cumsum(dim=0)
    return flat, edges, lengths


def _checked(name: str, tensor: object) -> Tensor:
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
    if hasattr(tensor, "placements"):
        raise TypeError(
            f"{name} is a DTensor, a shard of a larger tensor. Hand over whole sequences, or the "
            "local shards as plain tensors with process_group= naming the ranks they are cut over"
        )
    if name != "mask" and not tensor.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {tensor.dtype}")
    if tensor.is_complex():
        raise TypeError(f"{name} must be boolean or 0/1, got {tensor.dtype}")
    return tensor


def _check_shapes(tensors: dict[str, Tensor], cu_seqlens: Tensor | None) -> int:
    """Raise unless shapes and devices fit; the number of sequences."""
    tokens = tensors["logprobs"]
    shape = list(tokens.shape)
    if cu_seqlens is None and tokens.ndim != 2:
        raise ValueError(
            f"logprobs must be padded, [B, T], got shape {shape}"
            + ("; packed tokens [N] need cu_seqlens" if tokens.ndim == 1 else "")
        )
    if cu_seqlens is not None and tokens.ndim != 1:
        raise ValueError(f"with cu_seqlens, logprobs must be packed, [N], got shape {shape}")
    if tokens.numel() == 0:
        raise ValueError(f"the batch is empty: logprobs has shape {shape}")
    if cu_seqlens is not None:
        integral = not (cu_seqlens.is_floating_point() or cu_seqlens.dtype == torch.bool)
        if cu_seqlens.ndim != 1 or len(cu_seqlens) < 2 or not integral:
            raise ValueError(
                "cu_seqlens must be integers [S+1] with S >= 1, e.g. [0, 5, 9] for sequences of "
                f"5 and 4 tokens, got {_kind(cu_seqlens)}"
            )
    sequences = len(tokens) if cu_seqlens is None else len(cu_seqlens) - 1
    names = ("B", "B, T") if cu_seqlens is None else ("S", "N")
    for name, tensor in tensors.items():
        if name == "advantages":
            if list(tensor.shape) not in ([sequences], shape):
                raise ValueError(
                    f"advantages must be [{names[0]}] = [{sequences}] or [{names[1]}] = {shape}, "
                    f"got {list(tensor.shape)}"
                )
        elif list(tensor.shape) != shape:
            raise ValueError(
                f"{name} must have the shape of logprobs, {shape}, got {list(tensor.shape)}"
            )
        if tensor.device != tokens.device:
            raise ValueError(f"{name} is on {tensor.device}, logprobs on {tokens.device}")
    if cu_seqlens is not None and cu_seqlens.device != tokens.device:
        raise ValueError(f"cu_seqlens is on {cu_seqlens.device}, logprobs on {tokens.device}")
    return sequences


def _check_edges(
    cu_seqlens: Tensor, tokens: int, process_group: dist.ProcessGroup | None, check: bool
) -> None:
    """Raise unless the edges span the tokens, where reading them is free or asked for."""
    if not check and cu_seqlens.device.type != "cpu":
        return
    edges = cu_seqlens.tolist()
    if edges[0] != 0 or any(a > b for a, b in zip(edges, edges[1:], strict=False)):
        raise ValueError(f"cu_seqlens must start at 0 and never fall, got {_some(edges)}")
    if process_group is not None:
        ranks = dist.get_world_size(process_group)
        if edges[-1] != ranks * tokens:
            raise ValueError(
                f"cu_seqlens ends at {edges[-1]}; over {ranks} ranks with {tokens} tokens each it "
                f"must be global and end at {ranks * tokens}. Make padding at the end a sequence "
                "of its own, masked out"
            )
    elif edges[-1] > tokens:
        raise ValueError(
            f"cu_seqlens ends at {edges[-1]}, logprobs has {tokens} tokens only: this looks like "
            "a shard of sequences cut over ranks, whose prefix sums would be wrong. Name the "
            "ranks with process_group="
        )
    elif edges[-1] != tokens:
        raise ValueError(
            f"cu_seqlens ends at {edges[-1]}; it must end at the number of tokens, {tokens}"
        )


def _check_unambiguous(cu_seqlens: Tensor | None, check: bool) -> None:
    """Raise if [S] = [N] advantages could be meant either way."""
    assert cu_seqlens is not None
    if (check or cu_seqlens.device.type == "cpu") and bool((cu_seqlens.diff() != 1).any()):
        raise ValueError(
            "advantages could be per sequence or per token, as there are as many sequences as "
            "tokens; drop the empty sequences from cu_seqlens"
        )


def _raise_at_first(
    wrong: Tensor, values: Tensor, name: str, right: str, cu_seqlens: Tensor | None = None
) -> None:
    places = wrong.nonzero()
    if not len(places):
        return
    row, position = 0, int(places[0, -1])
    value = values[tuple(places[0])].item()
    if wrong.ndim == 2:
        row = int(places[0, 0])
    elif cu_seqlens is not None:
        row = int((cu_seqlens <= position).sum()) - 1
        position -= int(cu_seqlens[row])
    more = f" ({len(places) - 1} more like it)" if len(places) > 1 else ""
    raise ValueError(f"{name} at row {row}, position {position} is {value}; {right}{more}")


def _kind(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"shape {list(value.shape)} of {value.dtype}"
    return type(value).__name__


def _some(edges: list[int]) -> str:
    return str(edges if len(edges) <= 8 else [*edges[:8], "..."])
