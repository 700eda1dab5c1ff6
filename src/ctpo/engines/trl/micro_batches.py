"""A micro-batch as TRL makes it: its mask, and how wide it has to be."""

from __future__ import annotations

from typing import Any

from torch import Tensor

Batch = dict[str, Any]

# Keys whose columns are those of the completion.
_COMPLETION_KEYS = (
    "completion_ids",
    "completion_mask",
    "tool_mask",
    "old_per_token_logps",
    "ref_per_token_logps",
    "sampling_per_token_logps",
    "importance_sampling_ratio",
)
# What the forward pass of a model with images is given besides.
IMAGE_KEYS = (
    "pixel_values",
    "image_grid_thw",
    "num_images",
    "pixel_attention_mask",
    "spatial_shapes",
    "num_tiles",
    "image_sizes",
    "token_type_ids",
    "mm_token_type_ids",
    "image_position_ids",
)


def policy_mask(batch: Batch) -> Tensor:
    """Return the mask [B, T] that is 1 on the tokens the policy chose."""
    mask = batch["completion_mask"]
    return (mask * batch["tool_mask"] if "tool_mask" in batch else mask).bool()


def cut(batch: Batch) -> Batch:
    """Cut a micro-batch to its own longest prompt and completion.

    Micro-batches come as wide as the longest row of the whole batch of rollouts; more than half of
    the columns can be padding. Batches with images are left alone.
    """
    if any(key in batch for key in IMAGE_KEYS):
        return batch
    prompt = max(1, int(batch["prompt_mask"].sum(1).max()))
    completion = max(1, int(batch["completion_mask"].sum(1).max()))
    width = batch["completion_ids"].size(1)
    result = dict(batch)
    for key in ("prompt_ids", "prompt_mask"):
        result[key] = batch[key][:, -prompt:]
    for key in _COMPLETION_KEYS:
        # A weight per sequence has one column, which is not a position.
        if key in batch and batch[key].size(1) == width:
            result[key] = batch[key][:, :completion]
    return result
