"""Validation of a call's tensors: always what costs no host sync, the rest when asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor


def validate(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor) -> None:
    """Raise unless types, dtypes, shapes and devices fit. Looks at no value, so never syncs.

    Args:
        logprobs: Must be floating point, [B, T] with B, T >= 1.
        old_logprobs: Must be floating point, [B, T].
        advantages: Must be floating point, [B] or [B, T].
        mask: Must be boolean or real, [B, T].

    Raises:
        TypeError: If something is not a tensor, or not of a usable dtype.
        ValueError: If a shape or a device does not fit, or the batch is empty.
    """
    named = {
        "logprobs": logprobs,
        "old_logprobs": old_logprobs,
        "advantages": advantages,
        "mask": mask,
    }
    for name, tensor in named.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
        if name != "mask" and not tensor.is_floating_point():
            raise TypeError(f"{name} must be floating point, got {tensor.dtype}")
    if mask.is_complex():
        raise TypeError(f"mask must be boolean or 0/1, got {mask.dtype}")

    shape = logprobs.shape
    if logprobs.ndim != 2:
        raise ValueError(f"logprobs must be padded, [B, T], got shape {list(shape)}")
    if logprobs.numel() == 0:
        raise ValueError(f"the batch is empty: logprobs has shape {list(shape)}")
    for name in ("old_logprobs", "mask"):
        if named[name].shape != shape:
            raise ValueError(
                f"{name} must have the shape of logprobs, {list(shape)}, got "
                f"{list(named[name].shape)}"
            )
    if advantages.shape != shape and advantages.shape != shape[:1]:
        raise ValueError(
            f"advantages must be [B] = {list(shape[:1])} or [B, T] = {list(shape)}, got "
            f"{list(advantages.shape)}"
        )
    for name, tensor in named.items():
        if tensor.device != logprobs.device:
            raise ValueError(f"{name} is on {tensor.device}, logprobs on {logprobs.device}")


def check_mask_values(mask: Tensor) -> None:
    """Raise if a mask has a value other than 0 and 1. Reads the mask back to the host.

    Args:
        mask: [B, T], boolean or real.

    Raises:
        ValueError: Names the first such place and its value.
    """
    wrong = (mask != 0) & (mask != 1)
    _raise_at_first(wrong, mask, "mask", "only 0 and 1 are allowed")


def check_finite(
    name: str, values: Float[Tensor, "B T"], policy_tokens: Bool[Tensor, "B T"]
) -> None:
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


def _raise_at_first(wrong: Tensor, values: Tensor, name: str, right: str) -> None:
    places = wrong.nonzero()
    if len(places):
        row, position = places[0].tolist()
        more = f" ({len(places) - 1} more like it)" if len(places) > 1 else ""
        raise ValueError(
            f"{name} at row {row}, position {position} is {values[row, position].item()}; "
            f"{right}{more}"
        )
