"""`CTPOConfig`: TRL's GRPO configuration with the objective's parameters."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field, fields
from typing import Any

from transformers.utils import is_torch_bf16_gpu_available
from trl import GRPOConfig

from ctpo.engines.trl.beside import refuse_kl_correction
from ctpo.engines.trl.sampling import refuse_other_sampling
from ctpo.objective import Objective, ObjectiveSpec

# Options of TRL's own surrogates, and what does here what they do there. Left as knobs they would
# silently do nothing.
_INSTEAD = {
    "delta": "dual_clip, the bound for negative advantages",
    "epsilon": "clip_low of an objective in ratio space, or eps_low of one in log space",
    "epsilon_high": "clip_high of an objective in ratio space, or eps_high of one in log space",
    "importance_sampling_level": 'the objective: "sequence" is objective="gspo"',
    "sapo_temperature_neg": 'objective="sapo" with objective_parameters={"tau_neg": ...}',
    "sapo_temperature_pos": 'objective="sapo" with objective_parameters={"tau_pos": ...}',
    **{
        f"vespo_{name}": f'objective="vespo" with objective_parameters={{"{name}": ...}}'
        for name in ("k_pos", "k_neg", "lambda_pos", "lambda_neg")
    },
}

# Reductions of TRL that make sense for a loss per token.
REDUCTIONS = ("grpo", "bnpo", "dapo", "dr_grpo")

_LEFT_TO_TRL = ("steps_per_generation", "generation_batch_size", "max_completion_length")
_COUNTS = (
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_generations",
    "num_iterations",
    *_LEFT_TO_TRL,
)

# TRL's names for a surrogate and a reduction together.
_SURROGATES = {
    "cispo": 'objective="cispo" with loss_type="dapo"',
    "luspo": 'objective="gspo" with loss_type="dr_grpo", whose sum over tokens it is, divided by '
    "max_completion_length",
    "sapo": 'objective="sapo" with loss_type="grpo"',
    "vespo": 'objective="vespo" with loss_type="dapo"',
}


@dataclass
class CTPOConfig(GRPOConfig):
    """`GRPOConfig` plus the objective.

    `loss_type` chooses the reduction of the loss per token, in TRL's names: `grpo` (mean over the
    tokens of a response, then over responses; the paper's, and the default), `bnpo`, `dapo` or
    `dr_grpo`. An objective parameter left at None keeps the preset's value.

    Args:
        bf16: Whether to train in bfloat16; by default where the GPU can.
        objective: Name of the preset, a key of `ctpo.objective.PRESETS`, or `module:name` for an
            objective of yours. Reduction and advantages are TRL's to choose (`loss_type`,
            `scale_rewards`); `ctpo.objective.METHODS` says what each method's source takes.
        eps_low: Lower edge of a log-space window, times t^power.
        eps_high: Upper edge of a log-space window, times t^power.
        power: How a log-space window grows with position.
        clip_low: Lower edge of a ratio-space window, 1 - clip_low.
        clip_high: Upper edge of a ratio-space window, 1 + clip_high.
        dual_clip: Upper bound for negative advantages; `"off"` removes it.
        objective_parameters: Further parameters of the preset by name, e.g. `{"tau_pos": 0.9}`, or
            the same as JSON; `"off"` stands for none.

    Raises:
        ValueError: A parameter has no effect on CTPO or on the preset, or sampling is truncated.
    """

    bf16: bool | None = field(
        default=None,
        metadata={"help": "Whether to train in bfloat16; by default where the GPU can."},
    )
    loss_type: str = field(
        default="grpo",
        metadata={"help": f"Reduction of the loss per token: one of {', '.join(REDUCTIONS)}."},
    )
    objective: str = field(default="ctpo", metadata={"help": "Name of the objective's preset."})
    eps_low: float | str | None = field(default=None, metadata={"help": "Lower log-space edge."})
    eps_high: float | str | None = field(default=None, metadata={"help": "Upper log-space edge."})
    power: float | str | None = field(
        default=None, metadata={"help": "Growth of the log-space window."}
    )
    clip_low: float | str | None = field(default=None, metadata={"help": "Lower ratio-space edge."})
    clip_high: float | str | None = field(
        default=None, metadata={"help": "Upper ratio-space edge."}
    )
    dual_clip: float | str | None = field(
        default=None, metadata={"help": "Upper bound for negative advantages, or 'off'."}
    )
    objective_parameters: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "Further parameters of the preset by name: '{\"tau_pos\": 0.9}'."},
    )

    def __post_init__(self) -> None:
        if self.bf16 is None and not is_torch_bf16_gpu_available():
            self.bf16 = False  # TRL's default is true, which cannot be had here
        self._refuse_wrong_numbers()  # before TRL divides by them
        super().__post_init__()
        self._refuse_other_losses()
        refuse_other_sampling(self)
        objective = self.build_objective()
        refuse_mismatch(objective)
        refuse_kl_correction(objective, self)
        micro_batches = self.steps_per_generation * self.num_iterations
        if self.gradient_accumulation_steps % micro_batches == 0:
            warnings.warn(
                "every update is on-policy: all ratios are 1, nothing is clipped and every "
                "objective is the same. Set steps_per_generation above "
                "gradient_accumulation_steps to take several steps on each batch of rollouts",
                stacklevel=3,
            )

    @property
    def objective_spec(self) -> ObjectiveSpec:
        """What the configuration says of the objective.

        Raises:
            ValueError: The preset is unknown or has no such parameter, or a value is wrong.
        """
        return ObjectiveSpec.of(
            self.objective, self, self.objective_parameters, table="objective_parameters"
        )

    def build_objective(self) -> Objective:
        """Return the objective that the configuration describes.

        Raises:
            ValueError: As for `objective_spec`.
        """
        return self.objective_spec.build()

    @property
    def steps_per_rollout(self) -> int:
        """Optimizer steps between two batches of rollouts."""
        micro_batches = self.steps_per_generation * self.num_iterations
        return max(1, micro_batches // self.gradient_accumulation_steps)

    def _refuse_wrong_numbers(self) -> None:
        for name in _COUNTS:
            count = getattr(self, name)
            if count is None and name in _LEFT_TO_TRL:
                continue
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise ValueError(f"{name} is {count!r}; it must be an integer from 1")
        for name, least in (("temperature", "above 0"), ("beta", "0 or more")):
            value = getattr(self, name)
            usable = isinstance(value, int | float) and 0 <= value < math.inf
            if not usable or (name == "temperature" and value == 0):
                raise ValueError(f"{name} is {value!r}; it must be {least}, and finite")

    def _refuse_other_losses(self) -> None:
        if self.loss_type not in REDUCTIONS:
            is_surrogate = self.loss_type in _SURROGATES
            raise ValueError(
                f"loss_type is {self.loss_type!r}, which is "
                + (f"set by {_SURROGATES[self.loss_type]}; " if is_surrogate else "not known; ")
                + "it is the reduction of the objective's loss per token, one of "
                + ", ".join(REDUCTIONS)
            )
        defaults = {f.name: f.default for f in fields(GRPOConfig)}
        for name, instead in _INSTEAD.items():
            if getattr(self, name) != defaults[name]:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, which has no effect on the CTPO "
                    f"objective; leave it at {defaults[name]!r} and set {instead}"
                )
        if self.off_policy_mask_threshold is not None and self.off_policy_mask_threshold <= 0:
            raise ValueError(
                f"off_policy_mask_threshold is {self.off_policy_mask_threshold!r}; it must be "
                "above 0, or None: the mean of log π_old - log π_θ over a response, in nats, from "
                "which a response with a negative advantage is left out"
            )


def refuse_mismatch(objective: Objective) -> None:
    """Raise if an objective wants a weight against the generator, which TRL computes itself.

    Raises:
        ValueError: Names the weight and what to set instead.
    """
    if objective.mismatch is not None:
        raise ValueError(
            f"the objective has {objective.mismatch!r}, and TRL does not hand the generator's "
            "log-probabilities to it; leave it out and set vllm_importance_sampling_correction"
        )


def objective_of(config: CTPOConfig, own: Objective | None) -> Objective:
    """Return the objective handed over, or else the one that the configuration describes.

    Args:
        config: The configuration.
        own: What was handed over, if anything was.

    Raises:
        TypeError: It is no objective.
        ValueError: The configuration describes one too, or the objective does not go with it.
    """
    spec = config.objective_spec
    if own is not None and not isinstance(own, Objective):
        raise TypeError(
            f"objective is {own!r}; it must be an Objective. A preset's name goes into CTPOConfig"
        )
    if own is not None and spec != ObjectiveSpec():
        raise ValueError(
            f"CTPOConfig describes an objective, {spec}, and CTPOTrainer has one handed over; "
            "leave one of them out"
        )
    objective = spec.build() if own is None else own
    refuse_mismatch(objective)
    refuse_kl_correction(objective, config)
    return objective
