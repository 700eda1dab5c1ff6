"""A ratio and a window of your own: trained on TRL, and found by name on verl.

python examples/own_parts.py     # an untrained model of 60,000 parameters; seconds on a CPU

On a cluster of verl's, every worker imports this file before it looks the loss up:
+policy_loss=ctpo policy_loss.import_=own_parts policy_loss.loss_mode=tempered
"""

import importlib.util
import math
from dataclasses import dataclass
from typing import ClassVar

from ctpo.objective import (
    Bounds,
    Objective,
    Ratio,
    Window,
    register_preset,
    register_ratio,
    register_window,
)


@register_ratio("tempered")
@dataclass(frozen=True)
class TemperedRatio(Ratio):
    """w_t = ρ_t^strength: between no importance weight at all, 0, and the cumulative one, 1."""

    accumulates: ClassVar[bool] = True
    strength: float = 0.5

    def log_weight(self, log_ratio, layout):
        return self.strength * layout.prefix_sums(log_ratio)

    def adjoint(self, gradient, layout):  # only for gradient="literal"
        return self.strength * layout.suffix_sums(gradient)

    def factors(self, layout):
        return layout.positions


@register_window("levelling")
@dataclass(frozen=True, kw_only=True)
class LevellingWindow(Window):
    """exp(-eps_low √n) ≤ w ≤ exp(eps_high √n), which widens no further after `until` factors."""

    eps_low: float = 0.02
    eps_high: float = 0.04
    until: int = 256

    follows_position: ClassVar[bool] = True

    def bounds(self, factors):
        width = factors.clamp(min=1, max=self.until).sqrt()
        return Bounds(-self.eps_low * width, self.eps_high * width, math.inf * width)

    def refuses(self, objective):
        if isinstance(objective.ratio, TemperedRatio):
            return None
        return f"{self!r} was made for a tempered ratio, not for {objective.ratio!r}"


register_preset("tempered", Objective(ratio="tempered", window="levelling"))


def share_of_digits(completions, **_):
    return [sum(c.isdigit() for c in text) / max(1, len(text)) for text in completions]


def train():
    from datasets import Dataset
    from tiny_model import tiny_model

    from ctpo.engines.trl import CTPOConfig, CTPOTrainer

    model, tokenizer = tiny_model()
    config = CTPOConfig(
        output_dir="runs/own-parts",
        objective="tempered",
        objective_parameters={"strength": 0.7, "until": 8},
        per_device_train_batch_size=8,
        steps_per_generation=4,
        num_generations=8,
        max_completion_length=16,
        max_steps=16,
        logging_steps=4,
        learning_rate=3e-3,
        bf16=False,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
    )
    trainer = CTPOTrainer(
        model=model,
        processing_class=tokenizer,
        args=config,
        reward_funcs=share_of_digits,
        train_dataset=Dataset.from_dict({"prompt": [f"Name {n} numbers." for n in range(64)]}),
    )
    trainer.train()
    print("trained with", trainer.objective)


def find_on_verl():
    from verl.trainer.ppo.core_algos import get_policy_loss_fn

    from ctpo.engines.verl.loss_config import CTPOPolicyLossConfig

    section = CTPOPolicyLossConfig(loss_mode="tempered", parameters={"strength": 0.7, "until": 8})
    loss = get_policy_loss_fn(section.loss_mode)
    print(f"verl takes {section.build_objective()}\nfrom {loss.__module__}.{loss.__name__}")


if __name__ == "__main__":
    train()
    if importlib.util.find_spec("verl"):
        find_on_verl()
