"""CTPO in TRL, without the rest of the package: a model learns to answer in digits.

python examples/trl_ctpo.py [MODEL]     # a Hub name or a directory
"""

import sys

from datasets import Dataset

from ctpo.engines.trl import CTPOConfig, CTPOTrainer


def share_of_digits(completions, **_):
    """Your own reward goes here: one number per completion."""
    return [sum(c.isdigit() for c in text) / max(1, len(text)) for text in completions]


config = CTPOConfig(
    output_dir="runs/trl-example",
    objective="ctpo",  # or any other of ctpo.objective.PRESETS
    per_device_train_batch_size=8,
    steps_per_generation=4,  # four optimizer steps on each batch of 32 responses
    num_generations=8,
    max_completion_length=16,
    max_steps=40,
    logging_steps=4,
    learning_rate=1e-5,
    bf16=False,
    save_strategy="no",
    report_to="none",
)
trainer = CTPOTrainer(
    model=sys.argv[1] if len(sys.argv) > 1 else "Qwen/Qwen3-0.6B",
    args=config,
    reward_funcs=share_of_digits,
    train_dataset=Dataset.from_dict({"prompt": [f"Name {n} numbers." for n in range(64)]}),
)
trainer.train()
