"""A reference model that follows the policy (`sync_ref_model`), stored with checkpoints.

TRL stores none: a resumed run would start again from the model as it was loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from trl import GRPOTrainer

_FILE = "reference.pt"


def save(directory: str, trainer: GRPOTrainer) -> None:
    """Write the reference into a checkpoint, if it is another than the model as loaded.

    Args:
        directory: The checkpoint.
        trainer: Whose reference it is. What DeepSpeed or FSDP divides is not stored.
    """
    divided = trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled
    if trainer.args.sync_ref_model and not divided and trainer.accelerator.is_main_process:
        reference = trainer.accelerator.unwrap_model(trainer.ref_model)
        torch.save(reference.state_dict(), Path(directory) / _FILE)


def load(directory: str, trainer: GRPOTrainer) -> None:
    """Take the reference from a checkpoint, if it follows the policy.

    Raises:
        ValueError: The checkpoint has none.
    """
    if not trainer.args.sync_ref_model:
        return
    file = Path(directory) / _FILE
    if not file.exists():
        raise ValueError(
            f"sync_ref_model is True and {directory} holds no reference ({_FILE} is missing: it "
            "was saved without sync_ref_model, by another trainer, or under DeepSpeed or FSDP); "
            "the KL term would be to another model. Resume with sync_ref_model=False"
        )
    state = torch.load(file, map_location=trainer.accelerator.device, weights_only=True)
    trainer.accelerator.unwrap_model(trainer.ref_model).load_state_dict(state)
