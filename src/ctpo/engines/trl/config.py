"""`CTPOConfig`: TRL's GRPO configuration with the objective's parameters."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, fields
from typing import Any

from transformers.utils import is_torch_bf16_gpu_available
from trl import GRPOConfig

from ctpo.objective import Objective, ObjectiveSpec

# Parameters of TRL's own losses. Left as knobs they would silently do nothing.
_OF_OTHER_LOSSES = (
    "beta",
    "delta",
    "entropy_coef",
    "epsilon",
    "epsilon_high",
    "importance_sampling_level",
    "off_policy_mask_threshold",
    "sapo_temperature_neg",
    "sapo_temperature_pos",
    "top_entropy_quantile",
    "use_adaptive_entropy",
    "use_bias_correction_kl",
    "vespo_k_neg",
    "vespo_k_pos",
    "vespo_lambda_neg",
    "vespo_lambda_pos",
)

# Reductions of TRL that make sense for a loss per token.
REDUCTIONS = ("grpo", "bnpo", "dapo", "dr_grpo")

# What generation may be told besides: nothing that changes the distribution sampled from.
_HARMLESS = ("include_stop_str_in_output", "max_tokens", "seed", "stop", "stop_token_ids")

_UNTRUNCATED: dict[str, tuple[Any, ...]] = {
    "top_p": (1.0,),
    "top_k": (0, -1, None),
    "min_p": (None, 0.0),
    "repetition_penalty": (1.0,),
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
        super().__post_init__()
        self._refuse_other_losses()
        self._refuse_truncated_sampling()
        refuse_mismatch(self.build_objective())
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

    def _refuse_other_losses(self) -> None:
        if self.loss_type not in REDUCTIONS:
            raise ValueError(
                f"loss_type is {self.loss_type!r}; CTPO takes the reduction from it and knows "
                f"{', '.join(REDUCTIONS)}"
            )
        defaults = {f.name: f.default for f in fields(GRPOConfig)}
        for name in _OF_OTHER_LOSSES:
            if getattr(self, name) != defaults[name]:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, which has no effect on the CTPO "
                    f"objective; leave it at {defaults[name]!r} (its window: eps_low, eps_high, "
                    "power, clip_low, clip_high, dual_clip)"
                )

    def _refuse_truncated_sampling(self) -> None:
        given = {name: getattr(self, name) for name in _UNTRUNCATED}
        extra = self.generation_kwargs if isinstance(self.generation_kwargs, dict) else {}
        given |= {name: value for name, value in extra.items() if name in _UNTRUNCATED}
        for name in extra:
            if name not in _UNTRUNCATED and name not in _HARMLESS:
                raise ValueError(
                    f"generation_kwargs has {name!r}, which can change the distribution sampled "
                    f"from; allowed are {', '.join(_HARMLESS)}"
                )
        for name, value in given.items():
            if value not in _UNTRUNCATED[name]:
                raise ValueError(
                    f"{name} is {value!r}; it must be {_UNTRUNCATED[name][0]!r}. The sampler would "
                    "draw from another distribution than the one whose log-probabilities are "
                    "trained: every ratio is off by the mass cut off, to the power t in a product"
                )


def refuse_mismatch(objective: Objective) -> None:
    """Raise if an objective wants a weight against the generator, which TRL computes itself.

    Args:
        objective: The objective.

    Raises:
        ValueError: Names the weight and what to set instead.
    """
    if objective.mismatch is not None:
        raise ValueError(
            f"the objective has {objective.mismatch!r}, and TRL does not hand the generator's "
            "log-probabilities to it; leave it out and set vllm_importance_sampling_correction"
        )
