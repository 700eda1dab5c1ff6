"""Libraries that replace TRL's trainer are refused: ours would never be called."""

from __future__ import annotations

from trl import GRPOTrainer


def refuse_patched_trainer() -> None:
    """Raise if another library has replaced TRL's trainer or its loss.

    Raises:
        RuntimeError: Names what has been replaced, and by which module.
    """
    # Unsloth compiles a GRPOTrainer of its own with the loss written into it.
    base = "trl.trainer.grpo_trainer"
    for name in ("compute_loss", "_prepare_inputs", "_generate_and_score_completions"):
        module = getattr(GRPOTrainer, name).__module__
        if GRPOTrainer.__module__ != base or not module.startswith(("trl.", "transformers.")):
            raise RuntimeError(
                f"trl.GRPOTrainer.{name} comes from {module}, not from TRL: a library such as "
                "Unsloth has replaced the trainer's loss, and the CTPO objective would never be "
                "called. Import ctpo.engines.trl without importing that library"
            )
