"""What the libraries print and send about themselves."""

from __future__ import annotations

import logging
import os
import warnings

import datasets
import huggingface_hub.constants
import transformers


def quiet_libraries() -> None:
    """Silence progress bars and notes that are not about the run, and keep telemetry at home."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # It was read when the library was imported.
    huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    # An answer nobody can grade is counted in our own metrics; TRL prints each in full.
    logging.getLogger("trl.trainer.grpo_trainer").setLevel(logging.ERROR)
    # Peft and TRL warn of things that the recipe has decided.
    warnings.filterwarnings("ignore", category=UserWarning, module="peft")
